//! The three steps together, as the agent and `portreeve check` take them.

mod gateway;
mod host;
mod text;
mod verdict;
