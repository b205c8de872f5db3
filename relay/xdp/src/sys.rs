//! bpf(2) and what belongs to it, as safe functions.
//!
//! The only module with unsafe code. Every call hands the kernel pointers to buffers that outlive
//! it, of the lengths the kernel was told.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the kernel takes lengths and descriptors as 32 bits; ours are small"
)]

use std::ffi::{CString, c_long, c_uint};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::asm::{MapRef, Program};

const BPF_MAP_CREATE: c_long = 0;
const BPF_MAP_LOOKUP_ELEM: c_long = 1;
const BPF_MAP_UPDATE_ELEM: c_long = 2;
const BPF_MAP_DELETE_ELEM: c_long = 3;
const BPF_PROG_LOAD: c_long = 5;
const BPF_LINK_CREATE: c_long = 28;

const BPF_NOEXIST: u64 = 1;

const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;

/// The program calls bpf_fib_lookup, which the kernel lends to programs that may be had under the
/// GPL. This one may, besides the licences of the whole.
const LICENSE: &std::ffi::CStr = c"Dual MIT/GPL";

/// How much of the verifier's log an error shows, in bytes; what is wrong stands at the end.
const LOG_SHOWN_MAX: usize = 2048;
const LOG_LEN: usize = 1 << 20;

/// The kinds of maps used here, by their numbers in `linux/bpf.h`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MapKind {
    Hash = 1,
    Array = 2,
    PerCpuArray = 6,
    DeviceHash = 25,
}

/// Elements take memory only while they are there.
pub(crate) const NO_PREALLOC: u32 = 1;
/// Userspace may map the elements into its memory.
pub(crate) const MMAPABLE: u32 = 1 << 10;

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf<T>(command: c_long, attr: &mut T) -> io::Result<c_long> {
    // SAFETY: `attr` is one of the kernel's own structures, given with its size, and the buffers
    // it names outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            ptr::from_mut(attr),
            size_of::<T>() as c_uint,
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

fn bpf_fd<T>(command: c_long, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn fd_of(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn name_of(name: &str) -> [u8; 16] {
    let mut field = [0; 16];
    // The last byte stays zero.
    for (place, byte) in field[..15].iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    field
}

/// A map of the kernel.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    key_len: usize,
    value_len: usize,
}

impl Map {
    pub(crate) fn create(
        name: &str,
        kind: MapKind,
        (key_len, value_len): (usize, usize),
        entries_max: u32,
        flags: u32,
    ) -> io::Result<Map> {
        let fd = bpf_fd(
            BPF_MAP_CREATE,
            &mut MapCreate {
                map_type: kind as u32,
                key_size: key_len as u32,
                value_size: value_len as u32,
                max_entries: entries_max,
                map_flags: flags,
                map_name: name_of(name),
                ..MapCreate::default()
            },
        )?;
        Ok(Map {
            fd,
            key_len,
            value_len,
        })
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Puts `value` at `key`, where nothing may be yet.
    pub(crate) fn insert(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!((key.len(), value.len()), (self.key_len, self.value_len));
        bpf(
            BPF_MAP_UPDATE_ELEM,
            &mut Element {
                map_fd: fd_of(&self.fd),
                key: key.as_ptr() as u64,
                value: value.as_ptr() as u64,
                flags: BPF_NOEXIST,
                ..Element::default()
            },
        )
        .map(drop)
    }

    /// Takes away what is at `key`.
    pub(crate) fn remove(&self, key: &[u8]) -> io::Result<()> {
        assert_eq!(key.len(), self.key_len);
        bpf(
            BPF_MAP_DELETE_ELEM,
            &mut Element {
                map_fd: fd_of(&self.fd),
                key: key.as_ptr() as u64,
                ..Element::default()
            },
        )
        .map(drop)
    }

    /// The values at `key` of a map with one for each of `cpus` processors, one after the other.
    pub(crate) fn get_per_cpu(&self, key: &[u8], cpus: usize) -> io::Result<Vec<u8>> {
        assert_eq!(key.len(), self.key_len);
        // The kernel rounds each up to eight bytes.
        let mut values = vec![0; self.value_len.next_multiple_of(8) * cpus];
        bpf(
            BPF_MAP_LOOKUP_ELEM,
            &mut Element {
                map_fd: fd_of(&self.fd),
                key: key.as_ptr() as u64,
                value: values.as_mut_ptr() as u64,
                ..Element::default()
            },
        )?;
        Ok(values)
    }
}

/// An array of the kernel in our own memory, as 64-bit words that both sides read and write at any
/// time.
#[derive(Debug)]
pub(crate) struct MappedArray {
    map: Map,
    words: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the memory is reached only as atomics, and lives until the last owner drops it.
unsafe impl Send for MappedArray {}
// SAFETY: as above.
unsafe impl Sync for MappedArray {}

impl MappedArray {
    /// An array of `elements` values of `element_len` bytes, a multiple of eight.
    pub(crate) fn create(name: &str, element_len: usize, elements: u32) -> io::Result<MappedArray> {
        assert_eq!(element_len % 8, 0);
        let map = Map::create(name, MapKind::Array, (4, element_len), elements, MMAPABLE)?;
        let len = element_len * elements as usize;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let words = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd.as_raw_fd(),
                0,
            )
        };
        if words == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = NonNull::new(words.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(MappedArray { map, words, len })
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.map.fd
    }

    /// The words of element `number`.
    pub(crate) fn element(&self, number: u32) -> &[AtomicU64] {
        let words_per_element = self.map.value_len / 8;
        let start = number as usize * words_per_element;
        // SAFETY: the mapping has `len` bytes, starts at a page, and lives as long as `self`; all
        // bits make an `AtomicU64`, and both sides write whole words or what the other ignores.
        let words = unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len / 8) };
        &words[start..start + words_per_element]
    }

    /// Writes element `number` anew, word by word.
    pub(crate) fn write(&self, number: u32, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.map.value_len);
        for (word, bytes) in self.element(number).iter().zip(bytes.as_chunks().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.len) };
    }
}

/// Why a program was not loaded.
#[derive(Debug, thiserror::Error)]
#[error("{error} {log}")]
pub(crate) struct LoadError {
    /// The kernel's word.
    pub(crate) error: io::Error,
    /// The end of the verifier's log; empty where it was never asked.
    pub(crate) log: String,
}

/// Loads an XDP program. The verifier's log is asked for only where it refuses: writing it takes
/// longer than verifying.
pub(crate) fn load(
    name: &str,
    program: &Program,
    map_fd: impl Fn(MapRef) -> RawFd,
) -> Result<OwnedFd, LoadError> {
    let insns = program.to_bytes(map_fd);
    let request = || ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: program.len() as u32,
        insns: insns.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        prog_name: name_of(name),
        expected_attach_type: BPF_XDP,
        ..ProgLoad::default()
    };
    let error = match bpf_fd(BPF_PROG_LOAD, &mut request()) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    // Without the right to load there is nothing to verify.
    if error.raw_os_error() == Some(libc::EPERM) {
        let log = String::new();
        return Err(LoadError { error, log });
    }
    let mut log = vec![0; LOG_LEN];
    let again = bpf_fd(
        BPF_PROG_LOAD,
        &mut ProgLoad {
            log_level: 1,
            log_size: LOG_LEN as u32,
            log_buf: log.as_mut_ptr() as u64,
            ..request()
        },
    );
    match again {
        Ok(program) => Ok(program),
        Err(error) => {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let shown = &log[end.saturating_sub(LOG_SHOWN_MAX)..end];
            let log = String::from_utf8_lossy(shown).trim_end().to_owned();
            Err(LoadError { error, log })
        }
    }
}

/// How a program is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttachFlags {
    /// In the driver, before the kernel makes anything of a frame.
    Driver = 1 << 2,
    /// In the kernel, after it has made a buffer of its own.
    Generic = 1 << 1,
}

/// Attaches `program` to an interface for as long as the result lives. When the process ends, in
/// whatever way, the kernel closes it and detaches.
pub(crate) fn attach(program: &OwnedFd, ifindex: u32, flags: AttachFlags) -> io::Result<OwnedFd> {
    bpf_fd(
        BPF_LINK_CREATE,
        &mut LinkCreate {
            prog_fd: fd_of(program),
            target_ifindex: ifindex,
            attach_type: BPF_XDP,
            flags: flags as u32,
        },
    )
}

/// The number of the interface called `name`.
pub(crate) fn ifindex(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the name is a string that ends with zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        ifindex => Ok(ifindex),
    }
}

/// Nanoseconds of the clock that the program reads.
pub(crate) fn monotonic_nanos() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists on every Linux, and `time` is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(any(test, feature = "testbed"))]
pub(crate) mod test_run {
    use super::*;

    const BPF_PROG_TEST_RUN: c_long = 10;
    const LIVE_FRAMES: u32 = 1 << 1;

    #[repr(C)]
    #[derive(Default)]
    struct TestRun {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        /// The kernel wants zeros behind the last field, which padding need not be.
        pad: u32,
    }

    /// struct xdp_md.
    #[repr(C)]
    struct Context {
        data: u32,
        data_end: u32,
        data_meta: u32,
        ingress: u32,
        queue: u32,
        egress: u32,
    }

    /// Runs `program` over one frame, which arrives at the loopback interface. Gives the verdict
    /// and the frame as the program left it.
    #[cfg(test)]
    pub(crate) fn one(program: &OwnedFd, frame: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        let mut out = vec![0; frame.len() + 256];
        let mut attr = TestRun {
            prog_fd: fd_of(program),
            data_size_in: frame.len() as u32,
            data_size_out: out.len() as u32,
            data_in: frame.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            repeat: 1,
            ..TestRun::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut attr)?;
        out.truncate(attr.data_size_out as usize);
        Ok((attr.retval, out))
    }

    /// Runs `program` over `times` copies of `frame`, each a buffer of its own that goes where the
    /// program sends it, as if they had arrived at `ingress`.
    pub(crate) fn live(
        program: &OwnedFd,
        frame: &[u8],
        ingress: u32,
        times: u32,
    ) -> io::Result<()> {
        let context = Context {
            data: 0,
            data_end: frame.len() as u32,
            data_meta: 0,
            ingress,
            queue: 0,
            egress: 0,
        };
        bpf(
            BPF_PROG_TEST_RUN,
            &mut TestRun {
                prog_fd: fd_of(program),
                data_size_in: frame.len() as u32,
                data_in: frame.as_ptr() as u64,
                repeat: times,
                ctx_size_in: size_of::<Context>() as u32,
                ctx_in: ptr::from_ref(&context) as u64,
                flags: LIVE_FRAMES,
                batch_size: 64,
                ..TestRun::default()
            },
        )
        .map(drop)
    }
}
