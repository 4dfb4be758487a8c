// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sends a text to the family hello_nl and prints the answer.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/genetlink.h>
#include <linux/netlink.h>

#include "hello_nl.h"

struct message {
	struct nlmsghdr header;
	struct genlmsghdr genl;
	char attributes[4096];
};

static void fail(const char *what, int err)
{
	fprintf(stderr, "%s: %s\n", what, strerror(err));
	exit(1);
}

/* Sends a command with one text attribute; leaves the answer in *message. */
static void ask(int sock, struct message *message, int family, int command,
		int attribute, const char *text)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct nlattr *attr = (struct nlattr *)message->attributes;
	size_t length = strlen(text) + 1;
	ssize_t got;

	if (length > 64) {
		fprintf(stderr, "%s: longer than 63 bytes\n", text);
		exit(1);
	}
	memset(message, 0, sizeof(*message));
	attr->nla_type = attribute;
	attr->nla_len = NLA_HDRLEN + length;
	memcpy(message->attributes + NLA_HDRLEN, text, length);
	message->genl.cmd = command;
	message->genl.version = HELLO_NL_VERSION;
	message->header.nlmsg_type = family;
	message->header.nlmsg_flags = NLM_F_REQUEST;
	message->header.nlmsg_len =
		NLMSG_LENGTH(GENL_HDRLEN) + NLA_ALIGN(attr->nla_len);

	if (sendto(sock, message, message->header.nlmsg_len, 0,
		   (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		fail("sendto", errno);
	got = recv(sock, message, sizeof(*message), 0);
	if (got < 0)
		fail("recv", errno);
	if (!NLMSG_OK(&message->header, (size_t)got)) {
		fprintf(stderr, "the answer is too short\n");
		exit(1);
	}
	if (message->header.nlmsg_type == NLMSG_ERROR) {
		struct nlmsgerr *err = NLMSG_DATA(&message->header);

		fail("the kernel", -err->error);
	}
}

/* The attribute of this type in an answer. */
static const void *find(const struct message *message, int type)
{
	const char *at = message->attributes;
	const char *end = (const char *)message + message->header.nlmsg_len;

	while (end - at >= NLA_HDRLEN) {
		const struct nlattr *attr = (const struct nlattr *)at;

		if (attr->nla_len < NLA_HDRLEN || attr->nla_len > end - at)
			break;
		if ((attr->nla_type & NLA_TYPE_MASK) == type)
			return at + NLA_HDRLEN;
		at += NLA_ALIGN(attr->nla_len);
	}
	fprintf(stderr, "the answer has no attribute %d\n", type);
	exit(1);
}

int main(int argc, char **argv)
{
	int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	struct message message;
	__u16 family;

	if (argc != 2) {
		fprintf(stderr, "usage: client TEXT\n");
		return 2;
	}
	if (sock < 0)
		fail("socket", errno);
	ask(sock, &message, GENL_ID_CTRL, CTRL_CMD_GETFAMILY,
	    CTRL_ATTR_FAMILY_NAME, HELLO_NL_FAMILY);
	memcpy(&family, find(&message, CTRL_ATTR_FAMILY_ID), sizeof(family));
	ask(sock, &message, family, HELLO_NL_CMD_GREET, HELLO_NL_ATTR_TEXT,
	    argv[1]);
	puts(find(&message, HELLO_NL_ATTR_TEXT));
	close(sock);
	return 0;
}
