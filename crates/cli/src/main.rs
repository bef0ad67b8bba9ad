//! The binary `atomix`: reads the command line and hands over.

use std::process::ExitCode;

use atomix_cli::args::{Arguments, Command};
use atomix_cli::exit::{Exit, Failure};
use atomix_cli::{cluster, demo, lock, log, management, map, member, serve, status};
use clap::Parser;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut builder = match arguments.command {
        // One thread takes a write from the socket to the log and back: a hand-over between threads costs more than it brings.
        Command::Serve(_) | Command::Leash(_) => tokio::runtime::Builder::new_current_thread(),
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

async fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Demo => demo::run().await?,
        Command::Serve(args) => serve::run(args).await?,
        Command::Map(args) => map::run(args).await?,
        Command::Lock(args) => return lock::run(args).await,
        Command::Delete(args) => management::delete(args).await?,
        Command::Exists(args) => management::exists(args).await?,
        Command::Log(args) => return log::run(&args),
        Command::Status(args) => status::run(args).await?,
        Command::Member(args) => member::run(args).await?,
        Command::DemoWriter(args) => demo::writer::run(args).await?,
        Command::DemoSequence(args) => demo::sequence::run(args).await?,
        Command::DemoGuarded => demo::guarded::run().await?,
        Command::DemoHolder(args) => demo::holder::run(args).await?,
        Command::Leash(args) => return lock::leash::run(args).await,
        Command::Guard { place } => cluster::guard(&place).await?,
    }
    Ok(Exit::Ok as u8)
}

fn ended(result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => code.into(),
        Err(failure) => {
            eprintln!("atomix: {failure}");
            failure.exit.into()
        }
    }
}
