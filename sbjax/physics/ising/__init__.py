"""The two-dimensional Ising model: mean field, exact solutions, sampling.

H = -J sum_<ij> s_i s_j - h sum_i s_i with J = 1 on a periodic square lattice of spins s = +-1; temperatures in units of
J, energies and magnetisations per spin. A field h breaks the symmetry between two equivalent states; arXiv 2409.06402
(Fig. 5) uses it as an analogy for a constant input of a network.
"""
