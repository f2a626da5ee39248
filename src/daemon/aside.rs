//! Long work that needs a processor, beside a loop that must not wait for one: what is due now goes first.

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How much less such work weighs than the loop's (nice(2)): about a tenth, where both want the same core.
const NICE: i32 = 10;

/// Does the work on a thread of its own, which gives way to all others of this process. `None` where there can be no such
/// thread, or the work panicked.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (give, take) = oneshot::channel();
    let runtime = Handle::current();
    let begun = std::thread::Builder::new().name("aside".into()).spawn(move || {
        // On Linux this is of the thread, and of those that it starts (setpriority(2)). A thread that may not give way, as under
        // the system call filter of our units, does the work all the same.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "long work does not give way to the loop");
        }
        let _runtime = runtime.enter();
        // Who asked may be gone.
        let _ = give.send(work());
    });
    if let Err(error) = begun {
        tracing::error!(%error, "no thread for long work");
        return None;
    }
    take.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_work_gives_way_and_the_loop_does_not() {
        let before = rustix::process::getpriority_process(None).unwrap();
        let seen = aside(|| {
            let inner = std::thread::spawn(|| rustix::process::getpriority_process(None).unwrap());
            (rustix::process::getpriority_process(None).unwrap(), inner.join().unwrap(), Handle::try_current().is_ok())
        });
        assert_eq!(seen.await, Some(((before + NICE).min(19), (before + NICE).min(19), true)));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
