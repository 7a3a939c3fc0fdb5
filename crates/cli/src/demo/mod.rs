//! `ottla demo`: the default and the lag-aware producer side by side.

mod journal;
mod lines;
mod members;
mod picture;
mod rehearsal;
mod report;
mod scene;
mod side;
mod stage;

use crate::arguments::DemoArguments;
use crate::failure::Result;
use crate::interrupt::Interrupt;
use journal::Figures;
use picture::Picture;
use scene::Scene;
use side::Side;
use stage::Stage;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often the picture is drawn, and how often a line is printed.
const DRAW_EVERY: Duration = Duration::from_millis(200);
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Both sides at one moment.
struct Look<'a> {
    scene: &'a Scene,
    /// Since the load began.
    at: Duration,
    titles: [&'a str; 2],
    figures: [&'a Figures; 2],
}

impl<'a> Look<'a> {
    fn sides(&self) -> impl Iterator<Item = (&'a str, &'a Figures)> {
        self.titles.into_iter().zip(self.figures)
    }
}

/// How the run is shown.
enum Show {
    Picture(Picture),
    Lines,
    Nothing,
}

pub(crate) async fn run(arguments: DemoArguments) -> Result<()> {
    let interrupt = Interrupt::listen();
    let scene = Arc::new(Scene::new(&arguments));
    let stage = Stage::set(&arguments).await?;
    let played = play(&stage, &arguments, &scene, &interrupt).await;
    let cleared = stage.clear(&arguments).await;
    played?;
    cleared
}

async fn play(
    stage: &Stage,
    arguments: &DemoArguments,
    scene: &Arc<Scene>,
    interrupt: &Interrupt,
) -> Result<()> {
    let (begin, begun) = watch::channel(None);
    let mut sides = tokio::select! {
        biased;
        () = interrupt.wait() => return Ok(()),
        sides = stage.sides(arguments, scene, &begun) => sides?,
    };
    let began = Instant::now();
    begin.send_replace(Some(began));
    for side in &mut sides {
        side.start(scene, began);
    }
    let watched = watch_run(arguments, scene, &sides, began, interrupt).await;
    let told = watched.and_then(|at| conclude(arguments, scene, &sides, at));
    let [left, right] = sides;
    tokio::join!(left.close(), right.close());
    told
}

/// Shows the run until it ends, is ended, or breaks; tells when that was.
async fn watch_run(
    arguments: &DemoArguments,
    scene: &Scene,
    sides: &[Side; 2],
    began: Instant,
    interrupt: &Interrupt,
) -> Result<Duration> {
    let on_terminal = io::stdout().is_terminal() && !arguments.no_tui;
    let (mut show, every) = match (arguments.json, on_terminal) {
        (true, _) => (Show::Nothing, TELL_EVERY),
        (false, true) => (Show::Picture(Picture::open()?), DRAW_EVERY),
        (false, false) => (Show::Lines, TELL_EVERY),
    };
    if let Show::Lines = show {
        lines::begin(scene, &mut io::stdout())?;
    }
    let mut ticks = interval_at(began + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let end = began + scene.end;
    loop {
        tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(began.elapsed()),
            () = tokio::time::sleep_until(end) => return Ok(scene.end),
            _ = ticks.tick() => {}
        }
        for side in sides {
            side.check()?;
        }
        let at = began.elapsed();
        let both = sides.each_ref().map(|side| side.figures(at));
        let look = look(scene, sides, &both, at);
        match &mut show {
            Show::Picture(picture) => {
                picture.draw(&look)?;
                if picture.is_left()? {
                    return Ok(began.elapsed());
                }
            }
            Show::Lines => lines::tell(&look, &mut io::stdout())?,
            Show::Nothing => {}
        }
    }
}

fn look<'a>(
    scene: &'a Scene,
    sides: &'a [Side; 2],
    both: &'a [Figures; 2],
    at: Duration,
) -> Look<'a> {
    Look {
        scene,
        at,
        titles: sides.each_ref().map(|side| side.names.title.as_str()),
        figures: both.each_ref(),
    }
}

/// The table, or the JSON, of the run as it was at `at`.
fn conclude(
    arguments: &DemoArguments,
    scene: &Scene,
    sides: &[Side; 2],
    at: Duration,
) -> Result<()> {
    let both = sides.each_ref().map(|side| side.figures(at));
    let failed = sides.each_ref().map(Side::failed);
    let look = look(scene, sides, &both, at);
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", report::json(&look, failed))?;
    } else {
        report::table(&look, failed, &mut out)?;
    }
    Ok(out.flush()?)
}
