//! `man`: the manual pages, made from the commands and from the types that read the schedule.

mod guide;
mod schedule;

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, Exit, print};

/// Print manual pages, or write all of them into a folder
///
/// One page for each command, tokenferry-schedule(5) for every key of a schedule, and tokenferry(8) for operations.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tokenferry man tokenferry-schedule.5 | man -l -\n  tokenferry man tokenferry-rotate | man -l -\n  tokenferry man --directory /usr/local/share/man   writes man1, man5 and man8 below it"
)]
pub struct Man {
    /// Which page: a name, with its section where there are several; all names when absent
    #[arg(value_name = "PAGE", conflicts_with = "directory")]
    page: Option<String>,
    /// Write every page below this folder
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// One page: its file's name and its text in roff.
struct Written {
    name: String,
    text: String,
}

impl Man {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 2 where there is no such page, 1 where the folder cannot be written.
    pub fn run(self) -> Result<(), Exit> {
        let pages = pages();
        if let Some(folder) = &self.directory {
            return pages.iter().try_for_each(|page| page.write(folder));
        }
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        let Some(wanted) = &self.page else { return print::data(&format!("{}\n", names.join("\n"))) };
        let fits = |page: &&Written| page.name == *wanted || page.name.rsplit_once('.').is_some_and(|(name, _)| name == wanted);
        let page = pages.iter().find(fits);
        print::data(&page.ok_or_else(|| Exit::usage(format!("there is no page `{wanted}`; there are {}", names.join(", "))))?.text)
    }
}

impl Written {
    fn write(&self, folder: &Path) -> Result<(), Exit> {
        let section = self.name.rsplit('.').next().unwrap_or("1");
        let folder = folder.join(format!("man{section}"));
        let path = folder.join(&self.name);
        let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, &self.text));
        written.map_err(|error| Exit::own(format!("{}: {error}", path.display())))
    }
}

fn pages() -> Vec<Written> {
    let mut command = Cli::command();
    command.build();
    let mut pages = vec![of_command(&command)];
    pages.extend(command.get_subcommands().filter(|c| !c.is_hide_set()).flat_map(|c| {
        let below = c.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help").map(of_command);
        std::iter::once(of_command(c)).chain(below).collect::<Vec<_>>()
    }));
    pages.push(schedule::page());
    pages.push(guide::page());
    pages
}

/// Of the pages' last change in substance.
const DATE: &str = "2026-11-30";

/// What stands at the head of each page, and the macro that groff needs for code.
fn head(title: &str, section: &str) -> Roff {
    let mut roff = Roff::new();
    let version = format!("tokenferry {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", [title, section, DATE, &version, "tokenferry manual"]);
    roff
}

fn of_command(command: &clap::Command) -> Written {
    let page = Page::new(command.clone().after_help("").after_long_help("").version(env!("CARGO_PKG_VERSION")));
    let name = page.get_filename();
    let title = name.trim_end_matches(".1");
    let mut text = head(title, "1").render().into_bytes();
    let sections =
        [Page::render_name_section, Page::render_synopsis_section, Page::render_description_section, Page::render_options_section];
    for section in sections {
        section(&page, &mut text).expect("writing to memory does not fail");
    }
    if command.get_subcommands().any(|c| !c.is_hide_set() && c.get_name() != "help") {
        page.render_subcommands_section(&mut text).expect("writing to memory does not fail");
    }
    // An empty line between two breaks is a space, and mandoc asks for it by that name.
    let mut text = String::from_utf8(text).expect("clap's texts are UTF-8").replace(".br\n\n.br\n", ".sp\n");
    if let Some(after) = command.get_after_help() {
        text.push_str(&tail(&after.to_string()));
    }
    let mut also = Roff::new();
    also.control("SH", ["SEE ALSO"]);
    also.text([bold("tokenferry"), roman("(1), "), bold("tokenferry-schedule"), roman("(5), "), bold("tokenferry"), roman("(8)")]);
    text.push_str(&also.render());
    Written { name, text }
}

/// What a help text ends with, paragraph for paragraph: `Examples:` and `Exit codes:` are sections of a page.
fn tail(after: &str) -> String {
    let mut roff = Roff::new();
    for paragraph in after.split("\n\n") {
        let (title, body) = match paragraph.split_once(':') {
            Some((title, body)) if !title.contains(['\n', '.']) && title.len() < 20 => (title, body),
            _ => ("Notes", paragraph),
        };
        let title = if title == "Example" { "Examples" } else { title };
        roff.control("SH", [title.to_uppercase().as_str()]);
        if title == "Examples" {
            code(&mut roff, body);
        } else {
            roff.text([roman(body.trim().replace('\n', " "))]);
        }
    }
    roff.render()
}

/// Lines as they are, less the indentation that all of them share.
fn code(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    let lines = || text.trim_matches('\n').lines();
    let indentation = lines().filter(|line| !line.is_empty()).map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    for line in lines() {
        roff.text([roman(line.get(indentation..).unwrap_or_default())]);
    }
    roff.control("fi", []);
}
