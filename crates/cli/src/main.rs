//! The binary `atomix`: reads the command line and hands over.

use std::process::ExitCode;

use atomix_cli::args::{Arguments, Command};
use atomix_cli::exit::{Exit, Failure};
use atomix_cli::{cluster, demo, map, serve, status};
use clap::Parser;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut builder = match arguments.command {
        // One thread takes a write from the socket to the log and back: a hand-over between threads costs more than it brings.
        Command::Serve(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return ended(Err(Failure::new(Exit::Refused, format!("cannot start threads: {error}"))));
        }
    };
    let result = runtime.block_on(run(arguments.command));
    // Whatever still runs has no say any more.
    runtime.shutdown_background();
    ended(result)
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo => demo::run().await,
        Command::Serve(args) => serve::run(args).await,
        Command::Map(args) => map::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::DemoWriter(args) => demo::writer::run(args).await,
        Command::Guard { place } => cluster::guard(&place).await,
    }
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            eprintln!("atomix: {failure}");
            failure.exit.into()
        }
    }
}
