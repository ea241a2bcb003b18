"""Theory of the loss landscape of overparameterised networks.

Counting (`counting`) and geometry (`manifold`, `paths`, `canonical`) of zero-loss manifolds; critical points from
narrow networks (`splitting`, `critical_points`, `classification`); teacher-student settings (`teacher_student`,
`copy_average`); recovery of a teacher from wider students (`expand_and_cluster`, `teacher_match`).
"""
