// What glibc has beyond the C standard; other libraries have none of it.
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
