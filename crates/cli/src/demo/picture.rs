//! The demo as a picture in a terminal.

use super::Look;
use super::journal::Figures;
use super::lines::{counted, seconds};
use super::scene::{SLOW, STALLING, Scene};
use crate::output::thousands;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};
use ratatui::{DefaultTerminal, Frame};
use std::io;
use std::time::Duration;

/// A full bar stands for at least so many records, or a few would look like many.
const FULL_BAR_MIN: u64 = 200;
/// Columns of a side that are no bar: partition, lag, share.
const LABELS_WIDTH: usize = 27;
/// Blocks from one eighth of a column to all of it.
const EIGHTHS: [&str; 8] = ["▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];

/// The terminal, given back when dropped.
pub(super) struct Picture(DefaultTerminal);

impl Picture {
    pub(super) fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }

    pub(super) fn draw(&mut self, look: &Look<'_>) -> io::Result<()> {
        self.0.draw(|frame| draw(frame, look)).map(drop)
    }

    /// Whether the user has asked to leave. The terminal is in raw mode: Ctrl-C comes as a key.
    pub(super) fn is_left(&mut self) -> io::Result<bool> {
        while event::poll(Duration::ZERO)? {
            let Event::Key(key) = event::read()? else {
                continue;
            };
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                KeyCode::Char('c') if control => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // Whatever is wrong with the terminal, the table is still to be printed.
        let _ = ratatui::try_restore();
    }
}

fn draw(frame: &mut Frame<'_>, look: &Look<'_>) {
    let rows = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(0),
        Constraint::Length(1),
    ]);
    let [top, middle, bottom] = rows.areas(frame.area());
    frame.render_widget(Paragraph::new(headlines(look)), top);
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]);
    let areas: [Rect; 2] = halves.areas(middle);
    let most = look.figures.iter().flat_map(|f| f.lags).max().unwrap_or(0);
    for ((title, figures), area) in look.sides().zip(areas) {
        let block = Block::bordered().title(format!(" {title} ").bold());
        let width = usize::from(block.inner(area).width);
        let bar_width = width.saturating_sub(LABELS_WIDTH);
        let lines = side(look, figures, most.max(FULL_BAR_MIN), bar_width);
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }
    let help = Line::from(" bars: records unread · share: of the last 2 s' records · q: end").dim();
    frame.render_widget(Paragraph::new(help), bottom);
}

fn headlines<'a>(look: &Look<'_>) -> Vec<Line<'a>> {
    let scene = look.scene;
    let clock = match counted(scene, look.at) {
        at if at < 0.0 => format!(" warming up, counting in {:.0} s", -at),
        at => format!(" {at:.0} of {:.0} s", scene.length().as_secs_f64()),
    };
    let load = format!(
        " · {:.0} records a second to each topic · a consumer takes {:.0} a second",
        scene.rate, scene.service_rate
    );
    let slow = format!(" partition {SLOW}'s consumer is five times slower");
    vec![
        Line::from(vec![clock.bold(), load.into()]),
        Line::from(slow),
        Line::from(format!(
            " partition {STALLING}'s consumer {}",
            stall(scene, look.at)
        )),
    ]
}

fn stall(scene: &Scene, at: Duration) -> String {
    let from = counted(scene, scene.stall_from);
    let length = (scene.stall_until - scene.stall_from).as_secs_f64();
    if at < scene.stall_from {
        format!("will stall at {from:.0} s for {length:.1} s")
    } else if scene.is_stalling(at) {
        let left = (scene.stall_until - at).as_secs_f64();
        format!("STALLS, for {left:.1} s more")
    } else {
        format!("stalled at {from:.0} s for {length:.1} s")
    }
}

fn side<'a>(look: &Look<'_>, figures: &Figures, full: u64, width: usize) -> Vec<Line<'a>> {
    let partitions = figures.lags.iter().zip(figures.shares).enumerate();
    let mut lines: Vec<Line<'a>> = partitions
        .map(|(partition, (&lag, share))| {
            let (state, style) = mood(look, partition);
            let filled = bar(lag, full, width);
            let gap = " ".repeat(width.saturating_sub(filled.chars().count()));
            Line::from(vec![
                Span::styled(format!("{partition:>3} {state:<5} "), style),
                Span::styled(filled, style),
                gap.into(),
                format!("{:>8}", thousands(lag)).into(),
                format!("  {:>4.1} %", share * 100.0).dim(),
            ])
        })
        .collect();
    let figure =
        |name: &str, value: String| Line::from(vec![format!(" {name:<18}").dim(), value.bold()]);
    lines.push(Line::from(""));
    lines.push(figure("end to end, p50", seconds(figures.p50())));
    lines.push(figure("end to end, p99", seconds(figures.p99())));
    lines.push(figure("longest", seconds(figures.times.max())));
    let counts = format!(
        "{} of {}",
        thousands(figures.unread),
        thousands(figures.sent)
    );
    lines.push(figure("unread", counts));
    lines
}

/// How a partition's consumer is doing, in a word.
fn mood(look: &Look<'_>, partition: usize) -> (&'static str, Style) {
    let color = |color| Style::default().fg(color);
    match partition {
        SLOW => ("slow", color(Color::Yellow)),
        STALLING if look.scene.is_stalling(look.at) => ("STALL", color(Color::Red)),
        _ => ("", color(Color::Green)),
    }
}

/// A bar of up to `width` columns, to an eighth of a column; what is not nothing is seen.
fn bar(count: u64, full: u64, width: usize) -> String {
    let eighths = (count as f64 / full.max(1) as f64 * width as f64 * 8.0).ceil();
    let eighths = (eighths as usize).min(width * 8);
    let mut bar = "█".repeat(eighths / 8);
    if let Some(rest) = (eighths % 8).checked_sub(1) {
        bar.push_str(EIGHTHS.get(rest).copied().unwrap_or(""));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::journal::Journal;
    use crate::demo::scene::scene_for_tests;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn bars_are_exact_to_an_eighth_and_show_the_smallest_lag() {
        assert_eq!(bar(0, 800, 10), "");
        assert_eq!(bar(1, 800, 10), "▏");
        assert_eq!(bar(400, 800, 10), "█████");
        assert_eq!(bar(450, 800, 10), "█████▋");
        assert_eq!(bar(900, 800, 10), "██████████");
        assert_eq!(bar(5, 800, 0), "");
    }

    fn shown(at: Duration, (width, height): (u16, u16)) -> String {
        let journal = Journal::new(Duration::ZERO);
        for number in 0..1234 {
            journal.sent(number, Duration::ZERO, STALLING);
        }
        let (left, right) = (
            journal.figures(at),
            Journal::new(Duration::ZERO).figures(at),
        );
        let look = Look {
            scene: &scene_for_tests(),
            at,
            titles: ["default", "lag-aware"],
            figures: [&left, &right],
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &look)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_picture_shows_both_sides_and_who_stalls() {
        let text = shown(Duration::from_secs(13), (100, 24));
        for part in [
            "default",
            "lag-aware",
            "STALLS, for 4.0 s more",
            "7 STALL █",
            "1,234",
            "1,234 of 1,234",
            "end to end, p99",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }

    #[test]
    fn a_tiny_terminal_is_no_reason_to_fail() {
        for size in [(1, 1), (20, 5), (40, 10)] {
            shown(Duration::ZERO, size);
        }
    }
}
