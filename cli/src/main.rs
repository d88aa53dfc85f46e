//! The one binary, `sluice`: every way to run Sluice is a subcommand.
//!
//! Owns flags, logging, signals and the wiring of the crates. Holds no logic of controller or proxy.

mod args;
mod check;
mod controller;
mod dataplane;
mod echo;
mod folder;
mod limits;
mod logging;
mod ratelimit;
mod report;
mod signals;
mod standalone;
mod status;
mod translate;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(arguments.log_level.as_str(), arguments.log_format);
    // Whoever came first has installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = match arguments.command {
        Command::Dataplane(options) => run(2, dataplane::run(options)),
        Command::Controller(options) => run(0, controller::run(options)),
        Command::Standalone(options) => run(2, standalone::run(options)),
        Command::Ratelimit(options) => run(0, ratelimit::run(options)),
        Command::Echo(options) => run(0, echo::run(options)),
        Command::Status(options) => run(1, status::run(options)),
        Command::Translate(options) => translate::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Version => {
            println!("sluice {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("sluice: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs on a runtime with this number of threads; 0: one a core.
fn run(threads: usize, command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if threads > 0 {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build()?;
    let done = runtime.block_on(command);
    // What is still under way has had its time.
    runtime.shutdown_background();
    done
}
