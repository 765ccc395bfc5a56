#pragma once
/// How many times this thread has allocated memory.
long allocations_of_this_thread(void);
