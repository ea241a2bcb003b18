"""Faults that were found by use, and the tests that try the input of each and further ones of its kind.

`python tests/faults/run.py` runs them and prints, for each, how many cases were tried and how many were right.
"""

METRICS, PHYSICS, RUNNER, REPORT = "tests/metrics", "tests/physics", "tests/runner", "tests/report"
NORMS, W, REPLICA = f"{METRICS}/norms_test.py", f"{METRICS}/wasserstein_test.py", f"{METRICS}/replica_test.py"
FILES, TREES, DAMAGE, KINDS = (
    "tests/common/files_test.py", "tests/trees_test.py", "tests/damage_test.py", "tests/damage_kinds_test.py",
)  # fmt: skip
PARAMS, CHECKPOINT = "tests/training/params_files_test.py", "tests/training/checkpoint_test.py"
TRIAL, RANKING, CONFIG_FILE = (
    f"{PHYSICS}/trial_test.py", f"{RUNNER}/ranking_test.py", f"{RUNNER}/config_file_test.py",
)  # fmt: skip
WORKDIR, CONFIG, ESTIMATE = (
    "tests/frame/workdir_test.py", "tests/frame/config_test.py", "tests/frame/estimate_test.py",
)  # fmt: skip
RANGES, STACKS, SPEC = (f"tests/symmetry/{name}_test.py" for name in ("ranges", "stacks", "spec"))


def of(file, *names):
    """Ids of tests of a file."""
    return tuple(f"{file}::test_{name}" for name in names)


ROWS = {
    # Met by trying what users of similar programs have reported.
    "1": ("W_p of any order in float32", (
        *of(NORMS, "against_fractions"),
        *of(W, "scale_and_order_without_overflow", "an_outlier_of_scipy_19712"),
    )),
    "2": ("distances of entries from 1e-30 to 1e30", (
        *of(NORMS, "moments", "gradient_is_that_of_scaled_entries"),
        *of(REPLICA, "scale_free_is_free_of_scale"),
        *of(f"{METRICS}/matched_test.py", "scale_free_is_free_of_scale"),
    )),
    "3": ("Ising: every state leads to every other", of(
        f"{PHYSICS}/ising_sampling_test.py",
        *("balance_on_two_by_two", "every_state_leads_to_every_other", "from_blocks_to_equilibrium", "refusals"),
        "the_finite_lattice_at_low_temperature",
    )),
    "4": ("buffers in parameter files are no weights", (
        *of(PARAMS, "running_statistics_are_left_out_and_said", "what_is_no_weight", "what_is_a_weight"),
        *of(PARAMS, "what_is_nearly_a_mask_is_a_weight", "what_is_nearly_a_table_of_positions_is_a_weight"),
        *of(RANKING, "what_is_left_out_is_said"),
    )),
    "5": ("terms of an equation are scalars", of(TRIAL, "a_mistake_has_its_sentence")),
    "6": ("~ and variables in paths", (
        *of(FILES, "paths_are_those_that_a_shell_would_make"),
        *of(WORKDIR, "a_tilde_is_the_home_folder"),
        *of(PARAMS, "home_and_variables_are_expanded"),
        *of(CONFIG_FILE, "a_file_is_found_where_a_shell_would_find_it"),
        *of(f"{RUNNER}/compile_cache_test.py", "without_a_home_there_is_none_and_no_folder_appears"),
    )),
    "7": ("boxed leaves of NNX states", of(PARAMS, "nnx_state_through_orbax", "a_single_box_is_opened")),
    "8": ("names that are prefixes of others", of(PARAMS, "names_that_begin_with_another_are_kept_apart")),
    "10": ("seeds beyond 32 bits", of(ESTIMATE, "too_large_is_refused_by_its_field_and_writes_nothing")),
    "11": ("floats that numpy lacks", of(PARAMS, "floats_that_numpy_lacks")),
    "12": ("damaged .npz files", of(
        PARAMS, "npz_that_is_none_or_holds_nothing", "whatever_a_damaged_file_raises_is_one_sentence",
    )),
    "13": ("damaged orbax folders", of(PARAMS, "whatever_a_damaged_file_raises_is_one_sentence", "refusals")),
    "14": ("steps and items of orbax by other names", of(
        PARAMS, "steps_and_items_by_other_names", "steps_of_several_names_and_items_are_refused_by_name",
    )),
    "15": ("numpy and math functions in equations", of(TRIAL, "a_mistake_has_its_sentence")),
    "16": ("partials that are not declared, and other mistakes of equations", of(
        TRIAL,
        *("a_mistake_has_its_sentence", "partials_may_be_read_in_any_way", "the_field_is_named_and_nothing_written"),
    )),
    "17": ("errors inside a config file", of(CONFIG_FILE, "what_a_config_file_raises_is_told_with_its_line")),
    "18": ("whole paths of flags", of(CONFIG_FILE, "a_flag_of_a_field_that_is_not_there_names_the_likely_one")),
    "19": ("config files that are no Python", of(
        CONFIG_FILE, "what_a_config_file_raises_is_told_with_its_line", "a_config_that_only_lists_something_ends_well",
    )),
    "20": ("empty paths", of(RANKING, "empty_paths_are_refused")),
    "22": ("integers as weights", (
        *of(TREES, "what_is_deleted_or_sparse_among_replicas_is_told", "modules_of_pytorch_are_told"),
        *of(TREES, "states_of_optimisers_are_no_weights"),
        *of(TREES, "floating_refuses", "arrays_of_other_libraries_are_refused"), *of(W, "refusals"),
    )),
    "23": ("shards, other formats, which file is meant", (
        *of(PARAMS, "refusals", "shards_by_their_index", "one_shard_of_several_is_no_model"),
        *of(PARAMS, "text_is_left_out_and_said"),
        *of(RANKING, "params_that_do_not_fit_together", "one_file_of_one_replica_is_told"),
    )),
    "24": ("whole modules", (
        *of(SPEC, "whole_modules"),
        *of(f"{METRICS}/interpolation_test.py", "refusals"),
        *of(REPLICA, "modules_are_replicas"),
        *of(TREES, "parameters_have_no_functions_and_no_settings"),
    )),
    "25": ("flags that are true or false", of(f"{RUNNER}/run_test.py", "bad_flags")),
    "26": ("activations without the derivatives of the equation", of(
        TRIAL, "activations_have_the_derivatives_of_the_equation", "networks_of_ones_own",
        "orders_are_those_of_the_activations", "kinks_of_networks_of_ones_own", "one_partial_that_is_zero_is_refused",
    )),
    "27": ("names of terms and unknowns", of(TRIAL, "names_of_an_equation", "faces_are_pairs")),
    "28": ("references of another problem", of(
        TRIAL, "a_reference_of_another_problem", "references_that_are_not_exact", "equations_of_the_package",
    )),
    "29": ("terminals of few letters", of(WORKDIR, "every_name_is_shown_on_a_terminal_of_few_letters")),
    # Met by using it as a new user would.
    "U1": ("lists of trees are replicas", (
        *of(TREES, "lists_that_are_replicas", "lists_that_could_be_either", "what_is_one_stacked_tree"),
        *of(TREES, "states_of_a_training_are_replicas"),
        *of(REPLICA, "a_list_of_trees_is_replicas", "lists_of_outputs", "replica_outputs_of_a_list"),
    )),
    "U2": ("running statistics of modules", of(
        W, "running_statistics_are_no_weights", "running_statistics_of_equinox_are_no_weights",
    )),
    "U3": ("shares and probes hold every class", (
        *of("tests/data/strata_test.py", "every_first_part_holds_the_classes_in_their_proportions"),
        *of("tests/data/images_test.py", "smaller_shares_are_nested_spread_out_and_leave_the_other_splits_alone"),
        *of("tests/experiments/text/text_test.py", "a_probe_of_a_sorted_set_holds_every_class"),
    )),
    "U4": ("distances under jit, vmap and grad", of(REPLICA, "traced", "traced_in_a_batch")),
    "U5": ("too few seeds are said", (
        *of(WORKDIR, "seeds_and_replicas_that_are_too_few_are_said"),
        *of(f"{METRICS}/bootstrap_test.py", "what_has_no_interval_says_so"),
        *of(f"{REPORT}/page_test.py", "few_seeds_are_told"),
        *of(f"{REPORT}/statistics_test.py", "few_seeds_get_no_verdict"),
        *of(f"{REPORT}/ranking_test.py", "ranking_puts_the_smallest_distance_first"),
        *of("tests/frame/arms_test.py", "measures_of_too_few_replicas_are_not_those_of_an_earlier_step"),
        *of("tests/experiments/text/text_test.py", "replicas_that_stopped_count_in_no_document"),
    )),
    "U6": ("resizing of any number of channels", of(
        "tests/data/images_test.py", "image_size_resizes_embedded_images_of_any_number_of_channels",
    )),
    "U7": ("likely names of unknown fields", of(
        CONFIG_FILE, "a_flag_of_a_field_that_is_not_there_names_the_likely_one", "a_folder_that_is_none",
    )),
    "U8": ("the time of measuring in seconds, the time that is left", (
        *of(f"{RUNNER}/run_test.py", "time_of_measuring"),
        *of(
            "tests/training/progress_test.py",
            *("a_program_of_which_nothing_is_counted_has_a_line", "steps_that_took_no_time_and_more_than_all_of_them"),
        ),
        *of("tests/frame/arm_training_test.py", "steps_that_no_replica_is_left_to_make_are_not_waited_for"),
    )),
    "U9": ("a workdir called '-'", (
        *of(CONFIG_FILE, "a_folder_that_is_none"), *of(WORKDIR, "a_path_that_is_no_folder_is_refused"),
    )),
    "U10": ("solutions with three coordinates are drawn", of(
        f"{REPORT}/fields_test.py",
        *("more_coordinates_are_drawn_in_slices", "a_slice_in_which_the_solution_is_zero_is_drawn"),
    )),
    "U11": ("fresh shapes compile next to nothing", of(
        REPLICA, "a_fresh_shape_of_small_layers_compiles_next_to_nothing",
    )),
    "U12": ("specs of NNX and Equinox modules", of(SPEC, "whole_modules")),
    "U13": ("saved between reports", of("tests/resume_test.py", "killed_between_reports_after_a_save_by_time")),
    # Met by checking numbers by other routes.
    "S1": ("scanned and carried weights", (
        *of(RANGES, "loops_have_the_groups_of_the_unrolled", "carry_of_ranges"),
        *of(STACKS, "a_group_a_layer", "planted_permutations_come_back"),
    )),
    "S2": ("concatenation: each part its own group", of(
        RANGES, "every_part_is_a_group", "planted_permutations_come_back", "on_paper",
    )),
    "S3": ("dtypes of weakly typed temperatures", of(
        f"{PHYSICS}/qcd_test.py", "the_dtype_of_weakly_typed_temperatures",
    )),
    "S4": ("float64 of numpy stays", (
        *of(W, "float64_of_numpy_stays", "numbers_of_python_stay"), *of(REPLICA, "float64_of_numpy_stays"),
    )),
    "S5": ("FLOPs know their optimiser", (
        *of("tests/frame/arms_test.py", "a_loop_counts_as_often_as_it_runs", "flops_of_line_searches_are_not_known"),
        *of("tests/frame/arms_test.py", "what_some_steps_compute_besides_is_counted"),
        *of("tests/frame/arms_test.py", "programs_of_which_xla_counts_nothing_or_not_all"),
        *of(f"{REPORT}/statistics_test.py", "flops_that_are_not_counted_give_no_pair"),
        *of(f"{REPORT}/page_test.py", "flops_that_are_not_counted_are_not_compared"),
    )),
    "S6": ("sizes of a spec are plain numbers", of(RANGES, "on_paper")),
    "S7": ("verdicts corrected for their number", (
        *of(f"{REPORT}/corrected_test.py", "holm_is_the_smallest_level_at_which_step_down_rejects", "what_is_said"),
        *of(f"{REPORT}/corrected_test.py", "without_any_effect_a_corrected_verdict_is_rarer_than_the_level"),
        *of(f"{REPORT}/page_test.py", "a_verdict_that_is_lost_once_corrected_is_told_everywhere"),
    )),
    "S8": ("numbers of the pages come from records", of("tests/claims/pages_test.py", "pages_and_records_agree")),
    "S9": ("verdicts of claims come from records", (
        *of("tests/claims/pages_test.py", "numbers_of_claims_come_from_records"),
        *of("tests/claims/published_test.py", "a_changed_number_changes_the_verdict"),
    )),
    # Met by breaking it.
    "R1": ("no code of a folder is run unasked", (
        *of(f"{RUNNER}/load_test.py", "code_in_a_workdir_is_not_run_unasked"),
        *of(KINDS, "a_record_imports_no_code_of_a_folder", "a_plan_that_was_not_written_here_is_refused"),
    )),
    "R2": ("a checkpoint belongs to its step and run", of(
        CHECKPOINT,
        *("another_identity_is_refused_by_its_first_entry", "a_damaged_checkpoint_is_named_and_the_previous_one_used"),
    )),
    "R3": ("other environments are told", of(
        WORKDIR, "another_environment_is_told_and_kept", "code_and_data_of_ones_own_that_were_changed_are_told",
    )),
    "R4": ("damaged files of a workdir", (
        *of(FILES, "json_that_cannot_be_used_is_named", "arrays_with_any_byte_changed_are_right_or_refused"),
        *of(FILES, "a_line_after_one_that_was_cut_off_is_whole"),
        *of(DAMAGE, "a_damaged_file_is_told"),
        *of(KINDS, "a_damaged_sweep_is_told", "a_damaged_table_of_cells_is_told", "a_record_of_a_damaged_run_is_told"),
        *of(KINDS, "predictions_of_another_form_are_told", "a_damaged_calibration_is_told"),
        *of("tests/data/streaming_test.py", "a_file_that_is_lost_in_a_training_is_told"),
    )),
    "R5": ("a finished run is made whole again", of(DAMAGE, "a_finished_run_is_made_whole_again")),
    "R6": ("a full disk in one sentence", (
        *of(FILES, "a_full_disk_names_the_file"),
        *of(CONFIG_FILE, "a_folder_that_was_being_copied_when_the_disk_was_full_is_one_sentence"),
        *of(f"{RUNNER}/sweeps_test.py", "a_lease_on_a_full_disk_is_told_with_its_file_and_leaves_nothing"),
        *of(CHECKPOINT, "a_disk_that_is_full_is_told_in_one_sentence", "a_full_disk_or_a_kill_loses_nothing"),
    )),
    "R7": ("numbers that are too large", of(
        ESTIMATE, "too_large_is_refused_by_its_field_and_writes_nothing", "a_limit_of_the_process_counts",
        "the_limit_of_a_job_counts",
    )),
    "R8": ("sections of the wrong type", (
        *of(CONFIG, "refusals_name_field_value_and_remedy", "every_field_refuses_what_it_cannot_be"),
        *of("tests/frame/mutated_test.py", "refused_in_words_or_accepted_with_an_effect", "kinds_that_came_later"),
        *of("tests/frame/mutated_test.py", "kinds_that_came_last", "a_message_names_the_section_that_has_the_field"),
    )),
    "R9": ("refused before training", (
        *of(f"{RUNNER}/run_test.py", "bad_input_is_refused_fast_and_leaves_nothing"),
        *of("tests/wiring_test.py", "refused_before_anything_is_written"),
        *of("tests/frame/callbacks_test.py", "what_cannot_be_called_is_refused"),
    )),
    "R10": ("accepted and senseless", (
        *of(CONFIG, "refusals_name_field_value_and_remedy", "an_arm_that_differs_in_nothing_that_is_read_is_refused"),
        *of(CONFIG, "a_section_that_a_kind_does_not_read_is_refused"),
        *of(CONFIG_FILE, "a_flag_of_a_second_phase_that_is_not_there"),
    )),
    "R11": ("read-only folders, signals, memory, start-up", (
        *of(WORKDIR, "a_folder_that_cannot_be_written_is_shown"),
        *of("tests/resume_test.py", "asked_to_stop"),
        *of(CONFIG_FILE, "memory_that_runs_out_is_told_with_what_to_lower"),
        *of(CONFIG_FILE, "a_limit_in_which_jax_cannot_start_is_told"),
        *of(CONFIG_FILE, "flags_are_told_before_anything_heavy_is_imported"),
        *of(CONFIG_FILE, "a_flag_that_is_missing_is_told_before_anything_heavy_is_imported"),
        *of(f"{RUNNER}/run_test.py", "help", "bad_flags", "an_interrupt_while_a_config_file_is_run"),
    )),
    "R12": ("a second start compiles nothing", of(
        f"{RUNNER}/compile_cache_test.py", "where_it_is", "a_second_start_costs_little_and_changes_no_byte",
    )),
    "R13": ("the page fits and can be read", (
        *of(f"{REPORT}/browser_test.py", "pages_fit_and_can_be_read", "the_look_finds_what_is_wrong"),
        *of(f"{REPORT}/page_test.py", "report_says_what_was_found"),
        *of(f"{REPORT}/page_test.py", "a_number_and_its_interval_may_stand_on_two_lines"),
        *of(f"{REPORT}/verdict_test.py", "good_and_bad_news_are_as_plain"),
    )),
    "R14": ("no name and no digit is cut in a terminal", of(
        f"{REPORT}/tables_test.py",
        *("long_names_are_whole_and_what_is_too_wide_goes_on_below", "no_cell_is_ever_cut"),
        *("tables_fit_narrow_terminals", "wide_letters_and_marks_keep_the_columns", "no_word_of_a_note_is_cut"),
    )),
}  # fmt: skip
"""By the name of the fault: what it is, and the ids of its tests."""
