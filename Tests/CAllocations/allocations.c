// Stands before the C library's malloc in the test program, and counts. glibc only.
#include "allocations.h"
#include <stddef.h>

extern void *__libc_malloc(size_t);
static __thread long count;

void *malloc(size_t size) {
    count++;
    return __libc_malloc(size);
}

long allocations_of_this_thread(void) { return count; }
