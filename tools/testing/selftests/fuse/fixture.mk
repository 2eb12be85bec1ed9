# SPDX-License-Identifier: GPL-2.0
#
# What every program is linked with: for the Makefile here and for the one in
# tools/testing/fuse. To be included after lib.mk.

FIXTURE_DIR := $(selfdir)/fuse

CFLAGS += -Wall -Wextra -Wno-sign-compare -O2 -g $(KHDR_INCLUDES)
CFLAGS += -I$(FIXTURE_DIR)
LDLIBS += -luring -lpthread

# 32-bit programs for a 64-bit kernel: servers of the compat interface
ifeq ($(CROSS32),1)
CFLAGS += -m32 -D_FILE_OFFSET_BITS=64
# The harness casts pointers to integers of 64 bits.
CFLAGS += -Wno-pointer-to-int-cast
ifeq ($(filter clean,$(MAKECMDGOALS)),)
CAN_LINK_32 := $(shell echo 'int main(void) { return 0; }' | \
		 $(CC) -m32 $(LDFLAGS) -x c -o /dev/null - -x none -luring && echo y)
ifneq ($(CAN_LINK_32),y)
$(error CROSS32=1 needs gcc-multilib and a 32-bit liburing (liburing-dev:i386, or LDFLAGS=-L...))
endif
endif
endif

FIXTURE_HDRS := $(wildcard $(FIXTURE_DIR)/*.h)
FIXTURE_OBJS := $(addprefix $(OUTPUT)/, environment.o offer.o mount.o device.o \
		  client.o call.o loop.o server_memory.o server_queue.o \
		  server_command.o request.o test_fs.o test_fs_server.o)
vpath %.c $(FIXTURE_DIR)
EXTRA_CLEAN += $(FIXTURE_OBJS)

# One object of each file for all programs, which are linked anew with them: a
# header that changed needs no other rule.
$(FIXTURE_OBJS): $(OUTPUT)/%.o: %.c $(FIXTURE_HDRS)
	$(call msg,CC,,$@)
	$(Q)$(CC) $(CFLAGS) $(CPPFLAGS) -c $< -o $@

$(TEST_GEN_PROGS) $(TEST_GEN_FILES): $(FIXTURE_OBJS)
