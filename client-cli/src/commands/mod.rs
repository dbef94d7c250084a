//! One file for each command: its options, its help, what it does and what it shows.

use std::{collections::HashMap, str::FromStr};

use avtomatika_proto::JobId;

use crate::{
    args::{Cli, Command},
    console::Console,
    exit::Exit,
    failure::Failure,
};

pub mod approve;
pub mod bench;
pub mod blueprint;
pub mod blueprints;
pub mod cancel;
pub mod completions;
mod decide;
pub mod dev;
pub mod explain;
pub mod get;
pub mod graph;
pub mod history;
pub mod list;
pub mod reject;
pub mod reload;
mod repair;
pub mod retry;
pub mod schedules;
pub mod signal;
pub mod skip;
pub mod stats;
pub mod submit;
pub mod token;
pub mod watch;
pub mod webhooks;
pub mod workers;

/// Runs the command that the line names.
pub async fn dispatch(cli: Cli, console: &mut Console) -> Result<Exit, Failure> {
    let Cli { options, command } = cli;
    match command {
        Command::Submit(args) => submit::run(args, &options, console).await,
        Command::Get(args) => get::run(args, &options, console).await,
        Command::List(args) => list::run(args, &options, console).await,
        Command::Watch(args) => watch::run(args, &options, console).await,
        Command::History(args) => history::run(args, &options, console).await,
        Command::Explain(args) => explain::run(args, &options, console).await,
        Command::Webhooks(args) => webhooks::run(args, &options, console).await,
        Command::Graph(args) => graph::run(args, &options, console).await,
        Command::Cancel(args) => cancel::run(args, &options, console).await,
        Command::Signal(args) => signal::run(args, &options, console).await,
        Command::Approve(args) => approve::run(args, &options, console).await,
        Command::Reject(args) => reject::run(args, &options, console).await,
        Command::Retry(args) => retry::run(args, &options, console).await,
        Command::Skip(args) => skip::run(args, &options, console).await,
        Command::Workers(args) => workers::run(args, &options, console).await,
        Command::Schedules(args) => schedules::run(args, &options, console).await,
        Command::Blueprints(args) => blueprints::run(args, &options, console).await,
        Command::Blueprint(command) => blueprint::run(command, &options, console).await,
        Command::Reload(args) => reload::run(args, &options, console).await,
        Command::Token(command) => token::run(command, console),
        Command::Stats(args) => stats::run(args, &options, console).await,
        Command::Dev(args) => dev::run(args, &options, console).await,
        Command::Bench(args) => bench::run(args, &options, console).await,
        Command::Completions(args) => completions::run(args, console),
    }
}

/// A label as `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: String,
}

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.into(), value: value.into() }),
            _ => Err("expected KEY=VALUE, such as team=search"),
        }
    }
}

/// Labels as the protocol has them; of two with one key, the last counts.
fn labels(labels: Vec<Label>) -> HashMap<String, String> {
    labels.into_iter().map(|label| (label.key, label.value)).collect()
}

/// The job that a command is about.
#[derive(Debug, clap::Args)]
pub struct JobArg {
    /// Id of the job, as `submit` and `list` show it
    #[arg(value_name = "JOB_ID")]
    pub id: JobId,
}
