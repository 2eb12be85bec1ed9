# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
#
# What the Makefiles of the library and of the programs on it (tools/fuse) have
# in common. The first target of a Makefile has to come after it.

VERSION		:= 0.1.0
FUSE_VERSION	:= 3.13
LIBURING_VERSION := 2.3

PREFIX		?= /usr/local
BINDIR		?= $(PREFIX)/bin
LIBDIR		?= $(PREFIX)/lib
INCLUDEDIR	?= $(PREFIX)/include
MANDIR		?= $(PREFIX)/share/man
PKGCONFIGDIR	?= $(LIBDIR)/pkgconfig

PKG_CONFIG	?= pkg-config
INSTALL		?= install
SED		?= sed
OBJCOPY		?= objcopy

# A relative O= is meant from where make was called.
ifneq ($(O),)
ifeq ($(filter /%,$(O)),)
OUTPUT		:= $(PWD)/$(O)/
else
OUTPUT		:= $(O)/
endif
endif

ifeq ($(V),1)
Q		:=
say		=
else
Q		:= @
say		= @printf '  %-8s%s\n' $(1) '$(patsubst $(OUTPUT)%,%,$(2))';
endif
MAKEFLAGS	+= --no-print-directory

# What the installed packages offer, unless nothing is going to be compiled
ifneq ($(filter-out clean uninstall,$(or $(MAKECMDGOALS),all)),)

needs	:= liburing >= $(LIBURING_VERSION) fuse3 >= $(FUSE_VERSION)
missing	:= $(shell $(PKG_CONFIG) --exists '$(needs)' || echo y)
ifneq ($(missing),)
$(error pkg-config does not find $(needs) (Debian: pkg-config liburing-dev libfuse3-dev))
endif

deps_cflags := $(shell $(PKG_CONFIG) --cflags liburing fuse3)
uring_libs := $(shell $(PKG_CONFIG) --libs liburing)
fuse_libs := $(shell $(PKG_CONFIG) --libs fuse3)

endif

CFLAGS		?= -O2 -g
common_cflags	:= -std=gnu11 -Wall -Wextra -pthread -D_FILE_OFFSET_BITS=64 \
		   $(deps_cflags) $(if $(filter 1,$(WERROR)),-Werror)

# $(call put,mode,file,directory)
define put
	$(call say,INSTALL,$(3)/$(notdir $(2)))$(INSTALL) -D -m $(1) $(2) \
		'$(DESTDIR)$(3)/$(notdir $(2))'
endef

# What a command that failed has begun must not be taken for made.
.DELETE_ON_ERROR:
