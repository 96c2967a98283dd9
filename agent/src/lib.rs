//! Portreeve: the library behind the `portreeve` binary.

pub mod agent;
pub mod alert;
pub mod attempt;
pub mod cli;
pub mod clock;
pub mod control;
pub mod detect;
pub mod doctor;
pub mod host;
pub mod instance;
pub mod interpreter;
pub mod journal;
pub mod kernel;
pub mod policy;
pub mod relay;
pub mod rights;
pub mod subject;
pub mod trace;
