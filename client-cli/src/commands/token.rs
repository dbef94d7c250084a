//! `avtomatika token`: makes tokens, and the hashes that the orchestrator's files hold in their place.
//!
//! It asks no orchestrator and keeps nothing: a token is shown once, to whoever made it.

use std::io::{BufRead, IsTerminal, stdin};

use avtomatika_orchestrator::trust::{Glob, TokenHash, TokenKind, is_client_name, new_token};
use serde::Serialize;

use crate::{args::Format, console::Console, exit::Exit, failure::Failure, render::json};

/// Length of a token.
const TOKEN_BYTES_MAX: usize = 1024;

const NEW_HELP: &str = "\
The token goes to whoever is to use it, the other lines into the orchestrator's file: clients_file for clients, workers_file for
workers. `avtomatika reload` puts them in force. To exchange a token without a pause, give its entry both hashes for a while:
  token_sha256 = [\"OLD\", \"NEW\"]

Examples:
  avtomatika token new --client acme
  avtomatika token new --worker 'gpu-*' >> workers.toml
  avtomatika -o json token new --client acme | jq -r .token";

const HASH_HELP: &str = "\
The token comes from standard input, so that no other user of the machine sees it in a list of processes.

Examples:
  avtomatika token hash < token.txt
  printf %s \"$TOKEN\" | avtomatika token hash";

/// What `token` can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a token that nobody can guess, and the lines for the orchestrator's file
    #[command(after_long_help = NEW_HELP)]
    New(NewArgs),
    /// Print the hash of a token that there is already, read from standard input
    #[command(after_long_help = HASH_HELP)]
    Hash,
}

/// Options of `token new`.
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// Name of the client that it is for
    #[arg(long, value_name = "NAME", conflicts_with = "worker")]
    client: Option<String>,

    /// Name of the worker that it is for, or a pattern of names such as 'gpu-*'
    #[arg(long, value_name = "ID")]
    worker: Option<String>,
}

#[derive(Serialize)]
struct Form<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    token_sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
}

pub(super) fn run(command: Command, console: &mut Console) -> Result<Exit, Failure> {
    match command {
        Command::New(args) => new(args, console),
        Command::Hash => {
            if stdin().is_terminal() {
                console.note("Type the token, then press Enter.");
            }
            hash(stdin().lock(), console)
        }
    }
}

fn new(NewArgs { client, worker }: NewArgs, console: &mut Console) -> Result<Exit, Failure> {
    if let Some(name) = client.as_deref().filter(|name| !is_client_name(name)) {
        let hint = "a name is 1 to 64 characters of a-z A-Z 0-9 . _ -";
        return Err(Failure::usage(format!("{name:?} is not a client's name"), hint));
    }
    if let Some((name, invalid)) = worker.as_deref().and_then(|name| Some((name, Glob::new(name).err()?))) {
        let hint = "write a name, with * for any letters and ? for any one";
        return Err(Failure::usage(format!("{name:?} is not a worker's name: {}", invalid.0), hint));
    }
    let kind = if worker.is_some() { TokenKind::Worker } else { TokenKind::Client };
    let token = new_token(kind)
        .map_err(|error| Failure::System(format!("the system gives no random numbers: {error}")))?;
    let token_sha256 = TokenHash::of(token.expose().as_bytes()).to_hex();
    if console.format() == Format::Json {
        let form = Form { token: Some(token.expose()), token_sha256, client, worker };
        console.print_line(&json::line(&form))?;
        return Ok(Exit::Ok);
    }
    let (owner, file) = match (&client, &worker) {
        (_, Some(name)) => (format!("the worker {name}"), "workers file"),
        (Some(name), None) => (format!("the client {name}"), "clients file"),
        (None, None) => ("whoever is to use it".to_owned(), "clients file"),
    };
    console.note(&format!("Token for {owner}, shown once and never again:"));
    // Beside the answer, so that the answer can go straight into a file without it.
    console.note(token.expose());
    console.note(&format!("For the orchestrator's {file}:"));
    if let Some(name) = client.or(worker) {
        console.print_line(&section(&name))?;
    }
    console.print_line(&format!("token_sha256 = {token_sha256:?}"))?;
    Ok(Exit::Ok)
}

/// The head of an entry. What is no bare key of TOML stands in quotes.
fn section(name: &str) -> String {
    let is_bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { format!("[{name}]") } else { format!("[{name:?}]") }
}

fn hash(input: impl BufRead, console: &mut Console) -> Result<Exit, Failure> {
    let mut line = Vec::new();
    let read = input.take(TOKEN_BYTES_MAX as u64 + 2).read_until(b'\n', &mut line);
    read.map_err(|error| Failure::System(format!("standard input cannot be read: {error}")))?;
    let token = line.trim_ascii();
    let fits = (1..=TOKEN_BYTES_MAX).contains(&token.len());
    if !fits || !token.iter().all(u8::is_ascii_graphic) {
        return Err(Failure::usage(
            "what came is not 1 to 1024 visible ASCII characters",
            "send the token alone, on one line",
        ));
    }
    let token_sha256 = TokenHash::of(token).to_hex();
    match console.format() {
        Format::Json => {
            let form = Form { token: None, token_sha256, client: None, worker: None };
            console.print_line(&json::line(&form))?;
        }
        Format::Table => console.print_line(&format!("token_sha256 = {token_sha256:?}"))?,
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_quotes_where_toml_wants_them() {
        for (name, head) in [("acme", "[acme]"), ("a.b", "[\"a.b\"]"), ("gpu-*", "[\"gpu-*\"]")] {
            assert_eq!(section(name), head);
        }
    }
}
