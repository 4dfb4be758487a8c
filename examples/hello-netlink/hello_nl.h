/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/* The protocol of hello_nl, for the module and for programs. */
#ifndef HELLO_NL_H
#define HELLO_NL_H

#define HELLO_NL_FAMILY "hello_nl"
#define HELLO_NL_VERSION 1

enum {
	HELLO_NL_CMD_UNSPEC,
	/* Answers with HELLO_NL_ATTR_TEXT: the greeting and the text sent. */
	HELLO_NL_CMD_GREET,
};

enum {
	HELLO_NL_ATTR_UNSPEC,
	/* A text that ends with a zero byte. */
	HELLO_NL_ATTR_TEXT,
	__HELLO_NL_ATTR_MAX,
};
#define HELLO_NL_ATTR_MAX (__HELLO_NL_ATTR_MAX - 1)

#endif
