//! How an orchestrator's process takes memory from the system.
//!
//! It refuses to know who uses it, and how much.

/// Has the system hand out memory in pages of the usual size from now on, to this process and to those that it starts.
///
/// The allocator asks for huge pages (2 MiB) where it may. A connection touches a part of each of its buffers, and a huge page is
/// there as a whole: an idle orchestrator had 43 MiB instead of 22, and each connected worker cost 50 KiB instead of 33, while jobs
/// took no less processor time (docs/performance.md). To be called before memory is used. Where the system knows no such pages,
/// nothing happens.
pub fn do_without_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        // Nothing but memory is lost.
        tracing::debug!("Huge pages stay in use: {error}");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_off_from_then_on() {
        do_without_huge_pages();
        assert_eq!(rustix::thread::transparent_huge_pages_are_disabled(), Ok(true));
    }
}
