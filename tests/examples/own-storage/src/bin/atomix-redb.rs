//! The binary `atomix` with another storage: its servers keep everything in redb. Its demo is the same demo.
//!
//! ```text
//! cargo run -p example-own-storage --bin atomix-redb -- demo
//! ```

use std::process::ExitCode;

use atomix::Replica;
use atomix_cli::args::{Arguments, Command, Serve};
use atomix_cli::exit::{Exit, Failure};
use atomix_cli::{cluster, demo, lock, map, serve, status};
use atomix_storage_redb::{RedbOptions, RedbStorage};
use clap::Parser;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(arguments.command)));
    match result {
        Ok(code) => code.into(),
        Err(failure) => {
            eprintln!("atomix-redb: {failure}");
            failure.exit.into()
        }
    }
}

async fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Serve(args) => serve_over_redb(args).await?,
        // The demo's other processes, and what they call, are this program too.
        Command::Demo => demo::run().await?,
        Command::DemoWriter(args) => demo::writer::run(args).await?,
        Command::DemoSequence(args) => demo::sequence::run(args).await?,
        Command::DemoGuarded => demo::guarded::run().await?,
        Command::DemoHolder(args) => demo::holder::run(args).await?,
        Command::Map(args) => map::run(args).await?,
        Command::Lock(args) => return lock::run(args).await,
        Command::Leash(args) => return lock::leash::run(args).await,
        Command::Status(args) => status::run(args).await?,
        Command::Guard { place } => cluster::guard(&place).await?,
        _ => return Err(Failure::new(Exit::Usage, "this one is there to serve; call `atomix`")),
    }
    Ok(Exit::Ok as u8)
}

async fn serve_over_redb(args: Serve) -> Result<(), Failure> {
    let storage = RedbStorage::open(&args.data_dir, RedbOptions::default())
        .map_err(|error| Failure::new(Exit::DataDirectory, error.to_string()))?;
    let builder = Replica::builder(args.listen.as_str()).storage(Box::new(storage));
    serve::run_over(args, builder).await
}
