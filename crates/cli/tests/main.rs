//! The binary, as its users meet it: processes, exit codes, messages.

mod cluster;
mod command_line;
mod demo;
mod directory;
mod lock;
mod log;
mod management;
mod members;
mod replacing;
mod run;
mod running;
mod watch;
mod words;
