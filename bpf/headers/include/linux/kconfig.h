/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * All that BCC's own helpers want from a kernel's headers. BCC looks for this
 * file under BCC_KERNEL_SOURCE and includes it before anything else; the other
 * files of this tree exist because BCC names them, and point here. Structs of
 * the kernel are never taken from a header (agent/kernel/layout.py).
 */
#pragma once
#define CONFIG_BPF_SYSCALL 1
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 19, 0) /* the oldest with BIG TCP */
#define NULL ((void *)0)
#define __always_inline inline __attribute__((always_inline))
typedef unsigned char __u8, u8;
typedef signed char __s8, s8;
typedef unsigned short __u16, u16, __be16, __le16, __sum16;
typedef short __s16, s16;
typedef unsigned int __u32, u32, __be32, __le32, __wsum;
typedef int __s32, s32, pid_t;
typedef unsigned long long __u64, u64, __be64, __le64;
typedef long long __s64, s64;
typedef _Bool bool;
#define true 1
#define false 0
typedef unsigned long size_t, uintptr_t;
typedef long ssize_t;
#define __aligned_u64 __u64 __attribute__((aligned(8)))
