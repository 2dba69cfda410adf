//! The small settings hold, and each rule that is broken is found. `make model-long` explores the large ones.

use snapferry_deletion_model::explore::{Explored, explore};
use snapferry_deletion_model::setting::{Broken, Setting};
use snapferry_deletion_model::settings::{SHORT, finding};

/// Rules whose absence harms nobody as long as the others hold; docs/format.md says why they are kept.
const SPARE: [Broken; 3] =
    [Broken::SessionsBeforeSnapshots, Broken::NoLookAfterPublish, Broken::FinisherIgnoresNotes];

fn explored(setting: &Setting) -> Explored {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    explore(setting, threads, false, &mut |_, _| {})
}

#[test]
fn small_settings_hold() {
    for setting in &SHORT {
        let explored = explored(setting);
        println!(
            "{}: {} states, {} transitions, depth {}",
            setting.name, explored.states, explored.transitions, explored.depth
        );
        assert!(explored.violation.is_none(), "{}: {}", setting.name, explored.violation.unwrap());
    }
}

#[test]
fn each_broken_rule_is_found() {
    for broken in Broken::ALL {
        let explored = explored(&finding(broken));
        let found = explored.violation.map(|violation| violation.invariant);
        println!("{broken:?}: {} states, {found:?}", explored.states);
        if SPARE.contains(&broken) {
            assert_eq!(found, None, "{broken:?} is no longer spare");
        } else {
            let expected = expected(broken);
            assert!(
                found.is_some_and(|found| found.starts_with(expected)),
                "{broken:?}: {found:?}, not {expected}"
            );
        }
    }
}

/// The invariant that comes of it. A fault in the model that breaks another one first would otherwise go unnoticed.
fn expected(broken: Broken) -> &'static str {
    match broken {
        Broken::ParentReadOnce | Broken::NoPin | Broken::EndRemovedFirst => "I6",
        Broken::SessionsRemovedWithoutCopy | Broken::ForgetDeletesFirst => "I2",
        Broken::NotesRemoved => "I3",
        _ => "I1",
    }
}

#[test]
fn a_trace_leads_from_the_first_state_to_the_violation() {
    let explored = explore(&Setting { symmetric: false, ..finding(Broken::NoWait) }, 1, true, &mut |_, _| {});
    let violation = explored.violation.expect("is found");
    assert_eq!(violation.trace.len() as u32, explored.depth);
    assert_eq!(violation.trace.last().expect("has steps").1, violation.state);
    assert!(violation.to_string().contains("publishes what it condemns"));
}
