//! The model by hand: `long` explores the large settings to the end, a setting's name explores that one, and a broken rule's name prints the
//! shortest way to a violation.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use snapferry_deletion_model::explore::{Explored, explore};
use snapferry_deletion_model::setting::{Broken, Setting};
use snapferry_deletion_model::settings::{LONG, SHORT, finding};

const USAGE: &str = "\
usage: snapferry-deletion-model short | long | SETTING | BROKEN-RULE
    short, long …   explores all settings of that size to the end
    SETTING         explores one
    BROKEN-RULE     prints the shortest way to what comes of it";

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let settings = SHORT.iter().chain(&LONG);
    let chosen: Vec<&Setting> = match wanted.as_str() {
        "short" => SHORT.iter().collect(),
        "long" => LONG.iter().collect(),
        name => settings.clone().filter(|setting| setting.name == name).collect(),
    };
    if let Some(&broken) = Broken::ALL.iter().find(|broken| format!("{broken:?}") == wanted) {
        // Who is who stays as it is, so that the trace can be read.
        return run(&Setting { symmetric: false, ..finding(broken) }, true);
    }
    if chosen.is_empty() {
        let names: Vec<&str> = settings.map(|setting| setting.name).collect();
        eprintln!("{USAGE}\nsettings: {}\nbroken rules: {:?}", names.join(" "), Broken::ALL);
        return ExitCode::from(2);
    }
    for setting in chosen {
        let code = run(setting, false);
        if code != ExitCode::SUCCESS {
            return code;
        }
    }
    ExitCode::SUCCESS
}

/// Explores one setting and says what was found; fails on a violation.
fn run(setting: &Setting, traced: bool) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let mut told = begun;
    let explored = explore(setting, threads, traced, &mut |explored: &Explored, next: usize| {
        if told.elapsed().as_secs() >= 10 {
            told = Instant::now();
            eprintln!("{}: depth {}, {} states, {next} more", setting.name, explored.depth, explored.states);
        }
    });
    println!(
        "{}: {} states, {} transitions, depth {}, {:.1} s, {}",
        setting.name,
        explored.states,
        explored.transitions,
        explored.depth,
        begun.elapsed().as_secs_f64(),
        explored.violation.as_ref().map_or("no violation", |violation| violation.invariant),
    );
    let _ = std::io::stdout().flush();
    match explored.violation {
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
