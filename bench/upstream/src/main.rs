//! The two ends of a measurement: `upstream`, a scripted OpenAI server, and `load`, which measures what stands between.
//!
//! Both run on one thread, so that neither takes both cores of a small machine away from what is measured.

mod body;
mod load;
mod script;
mod stamps;
mod tally;
mod upstream;
mod watch;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "A scripted OpenAI upstream and a load generator, for loopback addresses only")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer as an OpenAI server would; the name of the model says how much and how fast.
    Upstream {
        /// Port on 127.0.0.1; it prints one line once it listens.
        #[arg(long)]
        port: u16,
    },
    /// Keep connections busy for a while, then print one line of JSON.
    Load(load::Options),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("no runtime: {error}")),
    };
    let ended = match command {
        Command::Upstream { port } => runtime.block_on(upstream::serve(port)),
        Command::Load(options) => runtime.block_on(load::run(options)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("bench-upstream: {why}");
    ExitCode::FAILURE
}
