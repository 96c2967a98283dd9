//! The life of an alert, by the commands an administrator types.
