//! The priority of threads: heavy work gives way to the database.

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

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

/// Puts the calling thread into the idle class: it runs when nobody else wants to, and the kernel serves its I/O last,
/// where the disk's scheduler knows classes. There is no way back for a thread without privileges; those that it
/// starts inherit the class. Where it is refused, the thread gives way as others do.
pub fn step_back() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
        && !is_idle()
    {
        tracing::debug!(?error, "a thread cannot be put into the idle class");
        give_way();
    }
}

/// Whether the calling thread is in the idle class. The class is set first, and what comes after it may be refused.
fn is_idle() -> bool {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    thread_priority::thread_schedule_policy().is_ok_and(|policy| policy == idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_steps_back() {
        assert!(!is_idle());
        let stepped = std::thread::spawn(|| {
            step_back();
            is_idle()
        });
        assert!(stepped.join().unwrap());
        assert!(!is_idle());
    }

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
