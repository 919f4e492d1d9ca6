//! Any bytes are steps of a few branches and their sessions at one master, in any order: what is relayed between them is answered once
//! and truly, and leaves nothing behind. The steps and the promises are in `actors/src/master/session/model.rs`; a unit test there runs
//! the seeds in `corpus/session/`.

/// Takes three bytes a step.
pub(crate) fn run(steps: &[u8]) {
    meshwork_actors::master::session_model::run(steps);
}
