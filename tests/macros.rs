//! The code that `#[meshwork::actions]` makes of a trait compiles under strict lints, and each fault of a trait is reported at its
//! place.
//!
//! The traits are in `macros/pass` and `macros/fail`; beside each file in `macros/fail` stand the errors of the compiler.
//! `TRYBUILD=overwrite cargo test --test macros` writes the errors anew: read the difference before you keep it.

#[test]
fn a_trait_of_actions_compiles_under_strict_lints() {
    trybuild::TestCases::new().pass("tests/macros/pass/*.rs");
}

#[test]
fn a_wrong_trait_is_refused_where_it_is_wrong() {
    trybuild::TestCases::new().compile_fail("tests/macros/fail/*.rs");
}
