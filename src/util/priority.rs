//! The priority of threads: heavy work gives way to the database.

use rustix::process::{getpriority_process, setpriority_process};

/// How much nicer such a thread is: where cores are scarce it gets about a third of what a normal thread gets. With much
/// less, whatever else runs on the machine would prolong the backup, and with it the time in which DDL waits.
const NICER: i32 = 5;
const NICEST: i32 = 19;

/// Makes the calling thread give way to all threads of normal priority. On a machine with a core to spare it costs
/// nothing. Where it is refused, the thread stays as it is.
pub fn give_way() {
    // To Linux, "no process" is the calling thread, not all of its process.
    let lowered = getpriority_process(None).and_then(|now| setpriority_process(None, (now + NICER).min(NICEST)));
    if let Err(error) = lowered {
        tracing::debug!(%error, "a thread's priority could not be lowered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_gives_way() {
        let before = getpriority_process(None).unwrap();
        let lowered = std::thread::spawn(|| {
            give_way();
            getpriority_process(None).unwrap()
        });
        assert_eq!(lowered.join().unwrap(), (before + NICER).min(NICEST));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
