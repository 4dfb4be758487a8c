//! The device /dev/nlrig.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

pub use nlrig_guest::uapi::nlrig_exchange as Exchange;
use nlrig_guest::uapi::{NLRIG_IOC_EXCHANGE, NLRIG_IOC_WAKE};

/// An open device.
pub struct Device {
    file: File,
}

impl Device {
    /// Opens /dev/nlrig for reading and writing.
    pub fn open() -> io::Result<Device> {
        Device::open_other("/dev/nlrig")
    }

    /// Opens another device instead of /dev/nlrig.
    pub fn open_other(path: &str) -> io::Result<Device> {
        OpenOptions::new().read(true).write(true).open(path).map(|file| Device { file })
    }

    /// NLRIG_IOC_EXCHANGE. Returns the updated structure.
    pub fn exchange(&self, value: u64) -> io::Result<Exchange> {
        let mut exchange = Exchange { value, count: 0 };
        // SAFETY: the pointer is that of `exchange`.
        unsafe { self.exchange_at(&mut exchange) }.map(|()| exchange)
    }

    /// NLRIG_IOC_EXCHANGE with a pointer to the argument.
    ///
    /// # Safety
    /// `argument` must be writable by the kernel, or unmapped.
    pub unsafe fn exchange_at(&self, argument: *mut Exchange) -> io::Result<()> {
        // SAFETY: the caller guarantees that the kernel may write to
        // `argument`.
        check(unsafe {
            libc::ioctl(self.file.as_raw_fd(), NLRIG_IOC_EXCHANGE as libc::Ioctl, argument)
        })
    }

    /// NLRIG_IOC_WAKE: starts a kernel timer that makes the device readable.
    pub fn wake_after(&self, delay: Duration) -> io::Result<()> {
        let delay_ms = delay.as_millis() as u32;
        // SAFETY: the pointer is that of `delay_ms`, which is only read.
        check(unsafe {
            libc::ioctl(self.file.as_raw_fd(), NLRIG_IOC_WAKE as libc::Ioctl, &raw const delay_ms)
        })
    }

    /// Blocks until the timer has expired. Returns the number of expiries.
    pub fn expiries(&self) -> io::Result<u64> {
        let mut number = [0; 8];
        (&self.file).read_exact(&mut number)?;
        Ok(u64::from_ne_bytes(number))
    }

    /// Maps the device's page read-only.
    pub fn page(&self) -> io::Result<Mapping> {
        Mapping::new(&self.file, 0, page_bytes(), libc::PROT_READ, libc::MAP_SHARED)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A file mapping, unmapped on drop.
pub struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    /// mmap().
    pub fn new(
        file: &impl AsFd,
        offset: u64,
        length: usize,
        protection: i32,
        flags: i32,
    ) -> io::Result<Mapping> {
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: the kernel chooses an unused address range.
        let start = unsafe {
            libc::mmap64(ptr::null_mut(), length, protection, flags, fd, offset as libc::off64_t)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start: start.cast(), length })
    }

    /// Copies the contents. The mapping must be readable.
    pub fn bytes(&self) -> Vec<u8> {
        let words = self.length / size_of::<u32>();
        // In units of 32 bits, because some devices support no other access.
        let word = |place| {
            // SAFETY: the address is within the page-aligned mapping.
            unsafe { self.start.cast::<u32>().add(place).read_volatile() }
        };
        (0..words).flat_map(|place| word(place).to_ne_bytes()).collect()
    }

    /// The numbers of the last exchange, from a mapping of the device's page.
    pub fn exchange(&self) -> Exchange {
        // SAFETY: the address is within the page-aligned mapping, and all bytes
        // are valid.
        unsafe { self.start.cast::<Exchange>().read_volatile() }
    }

    /// Writes 32 bits at an aligned offset. The mapping must be writable.
    pub fn write(&self, at: usize, word: u32) {
        assert!(at.is_multiple_of(size_of::<u32>()) && at + size_of::<u32>() <= self.length);
        // SAFETY: the address is within the page-aligned mapping.
        unsafe { self.start.add(at).cast::<u32>().write_volatile(word) };
    }

    /// The start address.
    pub fn start(&self) -> *mut u8 {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this object created the mapping, and nothing points into it
        // any more.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// The page size.
pub fn page_bytes() -> usize {
    // SAFETY: sysconf() takes an integer.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
