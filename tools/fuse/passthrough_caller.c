// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * passthrough_ring: doing things in the name of the caller
 *
 * The kernel checks permissions by itself (default_permissions) before it asks
 * a server that runs as root. What is left is that a new file belongs to who
 * made it: the thread takes on the caller's user and group for as long as that
 * takes, and keeps its capabilities, so that nothing that the kernel allowed
 * because of the caller's other groups is refused.
 *
 * One capability is given up: with CAP_FSETID in hand a write or truncation
 * would leave set-user-ID bits alone, whoever the caller is. Only where a mode
 * with a set-group-ID bit is stored it is needed: the kernel has taken that bit
 * out already if the caller may not set it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "passthrough.h"

/* As it is without libcap: the calling thread's capabilities */
struct capabilities {
	struct __user_cap_header_struct header;
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
};

static int capabilities_get(struct capabilities *caps)
{
	caps->header.version = _LINUX_CAPABILITY_VERSION_3;
	caps->header.pid = 0;
	return syscall(SYS_capget, &caps->header, caps->data) ? -errno : 0;
}

static bool have(const struct capabilities *caps, int cap)
{
	return caps->data[CAP_TO_INDEX(cap)].permitted & CAP_TO_MASK(cap);
}

/* Puts CAP_FSETID in force, or out of it, for the calling thread. */
int caller_allow_setgid(const struct passthrough *pt, bool allow)
{
	struct capabilities caps;
	uint32_t *effective;
	int err;

	if (!pt->impersonate)
		return 0;
	err = capabilities_get(&caps);
	if (err)
		return err;
	effective = &caps.data[CAP_TO_INDEX(CAP_FSETID)].effective;
	if (allow && have(&caps, CAP_FSETID))
		*effective |= CAP_TO_MASK(CAP_FSETID);
	else
		*effective &= ~CAP_TO_MASK(CAP_FSETID);
	return syscall(SYS_capset, &caps.header, caps.data) ? -errno : 0;
}

/*
 * Sets up what all threads inherit. Without the capabilities to change users
 * all files belong to the server's own user.
 */
int caller_init(struct passthrough *pt)
{
	struct capabilities caps;
	int err, bits;

	pt->uid = geteuid();
	pt->gid = getegid();
	umask(0);
	err = capabilities_get(&caps);
	if (err)
		return err;
	if (!have(&caps, CAP_SETUID) || !have(&caps, CAP_SETGID) ||
	    !have(&caps, CAP_SETPCAP))
		return 0;
	/* Capabilities are to stay when the file system user changes. */
	bits = prctl(PR_GET_SECUREBITS);
	if (bits < 0 ||
	    prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP))
		return -errno;
	pt->impersonate = true;
	return caller_allow_setgid(pt, false);
}

/* These two return no errors: what they return is the former ID. */
static int set_ids(uid_t uid, gid_t gid)
{
	setfsgid(gid);
	setfsuid(uid);
	if ((gid_t)setfsgid(gid) != gid || (uid_t)setfsuid(uid) != uid)
		return -EPERM;
	return 0;
}

/* The umask is all threads', unless they ask for one of their own. */
static int set_umask(mode_t mask)
{
	static __thread bool own;

	if (!own && unshare(CLONE_FS))
		return -errno;
	own = true;
	umask(mask);
	return 0;
}

static int begin(fuse_req_t req, struct caller *caller)
{
	const struct passthrough *pt = passthrough_of(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	int err;

	/*
	 * With ACLs the umask is ours to apply, as it only counts where a
	 * directory has no default ACL. Else the kernel did that.
	 */
	if (pt->posix_acl) {
		err = set_umask(ctx->umask);
		if (err)
			return err;
	}
	caller->is_server = !pt->impersonate ||
			    (ctx->uid == pt->uid && ctx->gid == pt->gid);
	return caller->is_server ? 0 : set_ids(ctx->uid, ctx->gid);
}

/* The calling thread makes files of this mode in the name of the caller. */
int caller_begin(fuse_req_t req, mode_t mode, struct caller *caller)
{
	const struct passthrough *pt = passthrough_of(req);
	int err;

	*caller = (struct caller){ .is_server = true, .pt = pt };
	if (mode & S_ISGID) {
		err = caller_allow_setgid(pt, true);
		if (err)
			return err;
		caller->has_fsetid = true;
	}
	err = begin(req, caller);
	if (err)
		caller_end(caller);
	return err;
}

/*
 * To go on as somebody else, or with too many rights, would be worse than to
 * go on no more.
 */
void caller_end(const struct caller *caller)
{
	if (!caller->is_server && set_ids(caller->pt->uid, caller->pt->gid)) {
		passthrough_log(caller->pt, "cannot become myself again");
		abort();
	}
	if (caller->has_fsetid && caller_allow_setgid(caller->pt, false)) {
		passthrough_log(caller->pt, "cannot give up CAP_FSETID again");
		abort();
	}
}
