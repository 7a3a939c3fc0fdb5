//! What both sides came to.

use super::Look;
use super::journal::Figures;
use super::lines::{counted, seconds};
use super::scene::{SLOW, STALLING};
use crate::output::{Align, Table, thousands};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::Duration;

/// The table at the end.
pub(super) fn table(look: &Look<'_>, failed: [u64; 2], to: &mut impl Write) -> io::Result<()> {
    let [left, right] = look.figures;
    if left.sent == 0 {
        return writeln!(to, "The demo ended before records began to count.");
    }
    let mut table = Table::new(["", look.titles[0], look.titles[1]]);
    let mut row = |name: &str, figure: &dyn Fn(&Figures) -> String| {
        table.push([name.to_owned(), figure(left), figure(right)]);
    };
    row("records sent", &|f| thousands(f.sent));
    row("records consumed", &|f| thousands(f.consumed));
    row("records unread", &|f| thousands(f.unread));
    row("end to end, p50", &|f| seconds(f.p50()));
    row("end to end, p99", &|f| seconds(f.p99()));
    row("end to end, longest", &|f| seconds(f.times.max()));
    row("biggest lag of a partition", &|f| thousands(f.biggest_lag));
    row("share of the slow partition", &|f| {
        format!("{:.1} %", f.slow_share * 100.0)
    });
    if failed != [0, 0] {
        table.push([
            "records failed".to_owned(),
            thousands(failed[0]),
            thousands(failed[1]),
        ]);
    }
    writeln!(to)?;
    let align = |column| match column {
        0 => Align::Left,
        _ => Align::Right,
    };
    table.write_aligned(to, align)?;
    writeln!(
        to,
        "\nThe {} producer's p99 is {:.3} of the {} one's. Records still unread count with their age.",
        look.titles[1],
        ratio(right.p99(), left.p99()),
        look.titles[0],
    )
}

/// The same for programs.
pub(super) fn json(look: &Look<'_>, failed: [u64; 2]) -> Value {
    let scene = look.scene;
    let sides = look.sides().zip(failed).map(|((title, figures), failed)| {
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        json!({
            "partitioner": title,
            "records_sent": figures.sent,
            "records_consumed": figures.consumed,
            "records_unread": figures.unread,
            "records_failed": failed,
            "p50_ms": millis(figures.p50()),
            "p99_ms": millis(figures.p99()),
            "max_ms": millis(figures.times.max()),
            "biggest_lag": figures.biggest_lag,
            "slow_partition_share": figures.slow_share,
            "lag_by_partition": figures.lags,
        })
    });
    let [left, right] = look.figures;
    json!({
        "seconds": counted(scene, look.at),
        "warm_up_seconds": scene.warm_up.as_secs_f64(),
        "rate": scene.rate,
        "record_bytes": scene.record_bytes,
        "seed": scene.seed,
        "consumer_rate": scene.service_rate,
        "slow_partition": SLOW,
        "stalling_partition": STALLING,
        "stall_seconds": [counted(scene, scene.stall_from), counted(scene, scene.stall_until)],
        "sides": Value::from_iter(sides),
        "p99_ratio": ratio(right.p99(), left.p99()),
    })
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64().max(1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::journal::Journal;
    use crate::demo::scene::scene_for_tests;

    fn figures(times: &[u64]) -> Figures {
        let journal = Journal::new(Duration::ZERO);
        for (number, millis) in (0u64..).zip(times) {
            journal.sent(number, Duration::ZERO, SLOW);
            let at = Duration::from_millis(*millis);
            journal.consumed(number, Duration::ZERO, SLOW, at);
        }
        journal.figures(Duration::from_secs(30))
    }

    #[test]
    fn both_sides_stand_beside_each_other() {
        let (left, right, scene) = (figures(&[10, 2000]), figures(&[5]), scene_for_tests());
        let look = Look {
            scene: &scene,
            at: scene.end,
            titles: ["default", "lag-aware"],
            figures: [&left, &right],
        };
        let mut out = Vec::new();
        table(&look, [0, 0], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("records consumed                   2          1\n"),
            "{text}"
        );
        assert!(
            text.contains("end to end, p99               2.00 s    0.005 s\n"),
            "{text}"
        );
        assert!(text.contains("p99 is 0.003 of the default one's"), "{text}");
        assert!(!text.contains("failed"));
        let json = json(&look, [1, 0]);
        assert_eq!(json["sides"][0]["p99_ms"], 2000.0);
        assert_eq!(json["sides"][0]["records_failed"], 1);
        assert_eq!(json["p99_ratio"], 0.0025);
    }
}
