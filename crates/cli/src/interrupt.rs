//! Ctrl-C and SIGTERM: the first asks for a clean end, the second ends at once.

use std::io::Write;
use tokio::sync::watch;

/// What a shell shows for a command that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Completes when the user asks for an end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Takes the signals over for the rest of the process.
    pub(crate) fn listen() -> Self {
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            asked().await;
            sender.send_replace(true);
            asked().await;
            let _ = writeln!(std::io::stderr(), "ottla: interrupted again, not waiting");
            std::process::exit(INTERRUPTED);
        });
        Self(receiver)
    }

    /// Waits for the first signal; at once if it has come.
    ///
    /// Cancel safety: safe.
    pub(crate) async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|asked| *asked).await.is_err() {
            // Without a listener no signal comes.
            std::future::pending().await
        }
    }

    /// Whether the signal has come.
    pub(crate) fn is_asked(&self) -> bool {
        *self.0.borrow()
    }
}

#[cfg(unix)]
async fn asked() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate => {}
    }
}

#[cfg(not(unix))]
async fn asked() {
    let _ = tokio::signal::ctrl_c().await;
}
