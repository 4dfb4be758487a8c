//! A file system that a hostile guest kernel can neither leave nor fill.
//!
//! virtiofsd trusts the guest in two things. It passes the names of mkdir,
//! unlink, rename and the like on as they come, though a kernel can send `..`;
//! and it writes as much as it is asked to, until the host's disk is full.
//! [`Bounded`] wraps its file system and does neither.
//!
//! A budget is for the life of the daemon, a new mount of the share included,
//! and only ever shrinks. What the guest deletes, overwrites or fails to do is
//! not given back: a failure may come after the fact (virtiofsd makes a folder,
//! then has no descriptor left to look it up), and who got a refund for it could
//! go on forever. So every request pays before it is carried out, and one that
//! cannot pay is not begun.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    SerializableFileSystem, SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse;

/// How much a guest may add to a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes written, those that overwrite others included. A hole counts as if
    /// it were written: it takes no room here, but in a copy of the folder.
    pub bytes: u64,
    /// Names made: files, folders, links (a target of 4 KiB at most included),
    /// nodes.
    pub entries: u64,
}

/// A file system that refuses a name that is not one plain component with
/// EINVAL, and what exceeds its bounds with ENOSPC.
#[derive(Debug)]
pub struct Bounded<F> {
    inner: F,
    bytes: Budget,
    entries: Budget,
}

impl<F> Bounded<F> {
    /// Bounds what is added through `inner`.
    pub fn new(inner: F, bounds: Bounds) -> Bounded<F> {
        let Bounds { bytes, entries } = bounds;
        Bounded { inner, bytes: Budget(bytes.into()), entries: Budget(entries.into()) }
    }

    /// Pays for an entry of this name. A bad name costs nothing.
    fn enter(&self, name: &CStr) -> io::Result<()> {
        plain(name)?;
        self.entries.take(1)
    }
}

impl<F: FileSystem<Inode = u64>> Bounded<F> {
    fn size(&self, ctx: Context, inode: u64) -> io::Result<u64> {
        Ok(self.inner.getattr(ctx, inode, None)?.0.size)
    }

    /// Pays for a file that is to reach up to `end`.
    fn grow(&self, ctx: Context, inode: u64, end: u64) -> io::Result<()> {
        self.bytes.take(end.saturating_sub(self.size(ctx, inode)?))
    }

    /// Pays for a piece of a file: for its bytes, or, where it begins beyond the
    /// end, for the hole before it too.
    fn fill(&self, ctx: Context, inode: u64, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.saturating_add(length);
        self.bytes.take(length.max(end.saturating_sub(self.size(ctx, inode)?)))
    }
}

/// What is left of a bound.
#[derive(Debug)]
struct Budget(AtomicU64);

impl Budget {
    /// Takes all of the amount, or nothing and says ENOSPC.
    fn take(&self, amount: u64) -> io::Result<()> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount))
            .map(drop)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOSPC))
    }
}

/// Whether a name is that of an entry of the very folder it is looked up in.
fn plain(name: &CStr) -> io::Result<()> {
    match name.to_bytes() {
        b"" | b"." | b".." => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        name if name.contains(&b'/') => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        _ => Ok(()),
    }
}

/// Whether an fallocate of this mode only ever takes away. All others pay, those
/// that do not exist yet included.
fn frees(mode: u32) -> bool {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    mode == PUNCH as u32 || mode == libc::FALLOC_FL_COLLAPSE_RANGE as u32
}

/// Methods that are passed on as they are.
macro_rules! pass_on {
    ($(fn $name:ident$(<$kind:ident: $bound:path>)?(&self $(, $arg:ident: $type:ty)* $(,)?)
        $(-> $result:ty)?;)*) => {
        $(fn $name$(<$kind: $bound>)?(&self $(, $arg: $type)*) $(-> $result)? {
            self.inner.$name($($arg),*)
        })*
    };
}

// A method left to the trait's default would silently take a feature away, or
// with another release of virtiofsd a bound.
#[deny(clippy::missing_trait_methods)]
impl<F: FileSystem<Inode = u64>> FileSystem for Bounded<F> {
    type Inode = u64;
    type Handle = F::Handle;
    type DirIter = F::DirIter;

    // What neither takes a name nor adds anything. An extended attribute's name
    // is not a path.
    pass_on! {
        fn init(&self, capable: FsOptions) -> io::Result<FsOptions>;
        fn destroy(&self);
        fn forget(&self, ctx: Context, inode: u64, count: u64);
        fn batch_forget(&self, ctx: Context, requests: Vec<(u64, u64)>);
        fn getattr(&self, ctx: Context, inode: u64, handle: Option<F::Handle>)
            -> io::Result<(fuse::Attr, Duration)>;
        fn readlink(&self, ctx: Context, inode: u64) -> io::Result<Vec<u8>>;
        fn open(&self, ctx: Context, inode: u64, kill_priv: bool, flags: u32)
            -> io::Result<(Option<F::Handle>, OpenOptions)>;
        fn read<W: ZeroCopyWriter>(&self, ctx: Context, inode: u64, handle: F::Handle, w: W,
            size: u32, offset: u64, lock_owner: Option<u64>, flags: u32) -> io::Result<usize>;
        fn flush(&self, ctx: Context, inode: u64, handle: F::Handle, lock_owner: u64)
            -> io::Result<()>;
        fn fsync(&self, ctx: Context, inode: u64, datasync: bool, handle: F::Handle)
            -> io::Result<()>;
        fn release(&self, ctx: Context, inode: u64, flags: u32, handle: F::Handle, flush: bool,
            flock_release: bool, lock_owner: Option<u64>) -> io::Result<()>;
        fn statfs(&self, ctx: Context, inode: u64) -> io::Result<libc::statvfs64>;
        fn getxattr(&self, ctx: Context, inode: u64, name: &CStr, size: u32)
            -> io::Result<GetxattrReply>;
        fn listxattr(&self, ctx: Context, inode: u64, size: u32) -> io::Result<ListxattrReply>;
        fn removexattr(&self, ctx: Context, inode: u64, name: &CStr) -> io::Result<()>;
        fn opendir(&self, ctx: Context, inode: u64, flags: u32)
            -> io::Result<(Option<F::Handle>, OpenOptions)>;
        fn readdir(&self, ctx: Context, inode: u64, handle: F::Handle, size: u32, offset: u64)
            -> io::Result<F::DirIter>;
        fn fsyncdir(&self, ctx: Context, inode: u64, datasync: bool, handle: F::Handle)
            -> io::Result<()>;
        fn releasedir(&self, ctx: Context, inode: u64, flags: u32, handle: F::Handle)
            -> io::Result<()>;
        fn access(&self, ctx: Context, inode: u64, mask: u32) -> io::Result<()>;
        fn lseek(&self, ctx: Context, inode: u64, handle: F::Handle, offset: u64, whence: u32)
            -> io::Result<u64>;
        fn syncfs(&self, ctx: Context, inode: u64) -> io::Result<()>;
        fn getlk(&self) -> io::Result<()>;
        fn setlk(&self) -> io::Result<()>;
        fn setlkw(&self) -> io::Result<()>;
        fn ioctl(&self) -> io::Result<()>;
        fn bmap(&self) -> io::Result<()>;
        fn poll(&self) -> io::Result<()>;
        fn notify_reply(&self) -> io::Result<()>;
        fn tmpfile(&self) -> io::Result<(Entry, Option<F::Handle>, OpenOptions)>;
    }

    fn lookup(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        plain(name)?;
        self.inner.lookup(ctx, parent, name)
    }

    fn unlink(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<()> {
        plain(name)?;
        self.inner.unlink(ctx, parent, name)
    }

    fn rmdir(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<()> {
        plain(name)?;
        self.inner.rmdir(ctx, parent, name)
    }

    fn rename(
        &self,
        ctx: Context,
        olddir: u64,
        oldname: &CStr,
        newdir: u64,
        newname: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        plain(oldname)?;
        plain(newname)?;
        // The one kind that leaves something behind under the old name.
        if flags & libc::RENAME_WHITEOUT != 0 {
            self.entries.take(1)?;
        }
        self.inner.rename(ctx, olddir, oldname, newdir, newname, flags)
    }

    fn symlink(
        &self,
        ctx: Context,
        // Any text: the guest resolves it, not the daemon.
        linkname: &CStr,
        parent: u64,
        name: &CStr,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.enter(name)?;
        self.inner.symlink(ctx, linkname, parent, name, extensions)
    }

    fn mknod(
        &self,
        ctx: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.enter(name)?;
        self.inner.mknod(ctx, parent, name, mode, rdev, umask, extensions)
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        self.enter(name)?;
        self.inner.mkdir(ctx, parent, name, mode, umask, extensions)
    }

    fn link(&self, ctx: Context, inode: u64, newparent: u64, newname: &CStr) -> io::Result<Entry> {
        self.enter(newname)?;
        self.inner.link(ctx, inode, newparent, newname)
    }

    fn create(
        &self,
        ctx: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<F::Handle>, OpenOptions)> {
        self.enter(name)?;
        self.inner.create(ctx, parent, name, mode, kill_priv, flags, umask, extensions)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        ctx: Context,
        inode: u64,
        handle: F::Handle,
        r: R,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<usize> {
        self.fill(ctx, inode, offset, size.into())?;
        self.inner.write(
            ctx,
            inode,
            handle,
            r,
            size,
            offset,
            lock_owner,
            delayed_write,
            kill_priv,
            flags,
        )
    }

    fn fallocate(
        &self,
        ctx: Context,
        inode: u64,
        handle: F::Handle,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        if !frees(mode) {
            self.fill(ctx, inode, offset, length)?;
        }
        self.inner.fallocate(ctx, inode, handle, mode, offset, length)
    }

    fn copyfilerange(
        &self,
        ctx: Context,
        inode_in: u64,
        handle_in: F::Handle,
        offset_in: u64,
        inode_out: u64,
        handle_out: F::Handle,
        offset_out: u64,
        len: u64,
        flags: u64,
    ) -> io::Result<usize> {
        // Who copies a file asks for more than there is, and is to pay for what
        // there is.
        let len = len.min(self.size(ctx, inode_in)?.saturating_sub(offset_in));
        self.fill(ctx, inode_out, offset_out, len)?;
        self.inner.copyfilerange(
            ctx, inode_in, handle_in, offset_in, inode_out, handle_out, offset_out, len, flags,
        )
    }

    fn setattr(
        &self,
        ctx: Context,
        inode: u64,
        attr: fuse::SetattrIn,
        handle: Option<F::Handle>,
        valid: SetattrValid,
    ) -> io::Result<(fuse::Attr, Duration)> {
        if valid.contains(SetattrValid::SIZE) {
            self.grow(ctx, inode, attr.size)?;
        }
        self.inner.setattr(ctx, inode, attr, handle, valid)
    }

    fn setxattr(
        &self,
        ctx: Context,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
        extra_flags: SetxattrFlags,
    ) -> io::Result<()> {
        self.bytes.take((name.count_bytes() + value.len()) as u64)?;
        self.inner.setxattr(ctx, inode, name, value, flags, extra_flags)
    }
}

// What is spent does not move along: the rig moves no machines.
#[deny(clippy::missing_trait_methods)]
impl<F: SerializableFileSystem> SerializableFileSystem for Bounded<F> {
    pass_on! {
        fn prepare_serialization(&self, cancel: Arc<AtomicBool>);
        fn serialize(&self, state_pipe: File) -> io::Result<()>;
        fn deserialize_and_apply(&self, state_pipe: File) -> io::Result<()>;
    }
}

#[cfg(test)]
mod tests;
