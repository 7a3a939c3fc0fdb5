//! The demo as lines of text, for what is no terminal.

use super::Look;
use super::scene::{SLOW, STALLING, Scene};
use crate::output::thousands;
use std::io::{self, Write};
use std::time::Duration;

/// What the scene is about.
pub(super) fn begin(scene: &Scene, to: &mut impl Write) -> io::Result<()> {
    writeln!(
        to,
        "{:.0} records a second to each topic for {:.0} s; the consumers of each group take {:.0} a \
         second, but partition {SLOW}'s five times fewer, and partition {STALLING}'s stalls from \
         {:.1} s to {:.1} s",
        scene.rate,
        scene.length().as_secs_f64(),
        scene.service_rate,
        counted(scene, scene.stall_from),
        counted(scene, scene.stall_until),
    )
}

/// Seconds since records began to count; below 0 before.
pub(super) fn counted(scene: &Scene, at: Duration) -> f64 {
    at.as_secs_f64() - scene.warm_up.as_secs_f64()
}

/// How both sides are doing, in one line.
pub(super) fn tell(look: &Look<'_>, to: &mut impl Write) -> io::Result<()> {
    write!(to, "{:>4.0} s", counted(look.scene, look.at))?;
    for (side, figures) in look.sides() {
        let lags = figures.lags.iter().enumerate();
        let (worst, lag) = lags.max_by_key(|(_, lag)| **lag).unwrap_or((0, &0));
        write!(
            to,
            "  |  {side}: {} unread, most in {worst} ({})",
            thousands(figures.lags.iter().sum()),
            thousands(*lag),
        )?;
        if figures.sent == 0 {
            write!(to, ", not counted yet")?;
            continue;
        }
        let (p50, p99) = (seconds(figures.p50()), seconds(figures.p99()));
        write!(to, ", p50 {p50}, p99 {p99}")?;
    }
    writeln!(to)
}

/// A time for people: three digits are enough.
pub(super) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 1.0 => format!("{s:.3} s"),
        s if s < 10.0 => format!("{s:.2} s"),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scene::scene_for_tests;

    #[test]
    fn the_scene_is_told_in_one_line() {
        let mut out = Vec::new();
        begin(&scene_for_tests(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("896 records a second to each topic for 30 s;"));
        assert!(text.ends_with("partition 7's stalls from 12.0 s to 17.0 s\n"));
    }

    #[test]
    fn times_have_three_digits() {
        let times = [1, 999, 1_000, 9_990, 12_340].map(Duration::from_millis);
        let texts = times.map(seconds);
        assert_eq!(texts, ["0.001 s", "0.999 s", "1.00 s", "9.99 s", "12.3 s"]);
    }
}
