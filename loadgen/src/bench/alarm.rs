//! When a lane is to wake by itself. The runtime's timer is true to a millisecond, which is as long as a fast call takes
//! and would be measured with it; where the system has a finer one, that is used as well.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Closer together lanes are not woken: at a high rate every waking would send a single call, and cost more than it.
const FINEST: Duration = Duration::from_micros(200);

/// An alarm that can be set again and again.
pub(super) struct Alarm {
    coarse: Pin<Box<Sleep>>,
    fine: Option<fine::Timer>,
}

impl Alarm {
    /// Rings at once.
    pub(super) fn new() -> Self {
        Self { coarse: Box::pin(sleep_until(Instant::now())), fine: fine::Timer::new() }
    }

    /// Sets it to ring at `at`, but not before the shortest time from `now`. One that is set to ring earlier stays so:
    /// setting it costs more than ringing once for nothing.
    pub(super) fn set(&mut self, at: Instant, now: Instant) {
        let at = at.max(now + FINEST);
        let set = self.coarse.deadline();
        if set <= now || set > at {
            self.coarse.as_mut().reset(at);
            if let Some(fine) = &self.fine {
                fine.set(at - now);
            }
        }
    }

    /// Returns when it rings.
    pub(super) async fn ring(&mut self) {
        match &self.fine {
            Some(fine) => tokio::select! {
                () = self.coarse.as_mut() => {}
                () = fine.ring() => {}
            },
            None => self.coarse.as_mut().await,
        }
    }
}

#[cfg(target_os = "linux")]
mod fine {
    //! The kernel's timer, true to some 50 microseconds.

    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    pub(super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        /// `None` when the system has none to give: the runtime's is used alone then.
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for files that others could close; this one is owned here"
        )]
        pub(super) fn new() -> Option<Self> {
            let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC).ok()?;
            AsyncFd::new(fd).ok().map(Self)
        }

        /// Rings after this time, which is more than nothing.
        pub(super) fn set(&self, after: Duration) {
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let Ok(tv_sec) = after.as_secs().try_into() else { return };
            let it_value = Timespec { tv_sec, tv_nsec: after.subsec_nanos().into() };
            // If it cannot be set, the runtime's timer rings.
            let _ = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value });
        }

        pub(super) async fn ring(&self) {
            match self.0.readable().await {
                // Setting it anew makes it readable anew.
                Ok(mut rang) => rang.clear_ready(),
                Err(_) => std::future::pending().await,
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod fine {
    //! Nothing finer than the runtime's timer.

    use std::time::Duration;

    pub(super) enum Timer {}

    impl Timer {
        pub(super) const fn new() -> Option<Self> {
            None
        }

        pub(super) fn set(&self, _: Duration) {
            match *self {}
        }

        pub(super) async fn ring(&self) {
            match *self {}
        }
    }
}
