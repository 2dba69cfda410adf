//! Explores one setting by hand, or the long form.

use snapferry_deletion_model::explore::explore;
use snapferry_deletion_model::setting::Broken;
use snapferry_deletion_model::settings::{LONG, SHORT};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let most = args.iter().find_map(|arg| arg.strip_prefix("most=")?.parse().ok()).unwrap_or(u64::MAX);
    let quiet = args.iter().any(|arg| arg == "-q");
    for setting in SHORT.iter().chain(&LONG) {
        if !args.iter().any(|arg| arg == setting.name) && args[0] != "all" {
            continue;
        }
        let broken: Vec<Option<Broken>> = match args.get(1).map(String::as_str) {
            Some("each") => Broken::ALL.iter().map(|&one| Some(one)).collect(),
            Some(name) if Broken::ALL.iter().any(|one| format!("{one:?}") == name) => {
                Broken::ALL.iter().filter(|one| format!("{one:?}") == name).map(|&one| Some(one)).collect()
            }
            _ => vec![None],
        };
        for broken in broken {
            let setting = snapferry_deletion_model::setting::Setting { broken, symmetric: quiet, ..*setting };
            let begun = std::time::Instant::now();
            let explored = explore(&setting, 2, !quiet, most, &mut |explored, next| {
                if !quiet && next > 100000 {
                    eprintln!(
                        "{:>4} {:>12} states {:>12} next {:.0?}",
                        explored.depth,
                        explored.states,
                        next,
                        begun.elapsed()
                    );
                }
            });
            println!(
                "{} {:?}: {} states, {} transitions, depth {}, {:.1?} {}",
                setting.name,
                broken,
                explored.states,
                explored.transitions,
                explored.depth,
                begun.elapsed(),
                explored.violation.as_ref().map_or("ok", |one| one.invariant)
            );
            if let Some(violation) = explored.violation.filter(|_| !quiet) {
                println!("{violation}");
            }
        }
    }
}
