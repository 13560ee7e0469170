/* punctual.h - asks the kernel to wake the calling thread on time. */
#ifndef LLMPOWER_PUNCTUAL_H
#define LLMPOWER_PUNCTUAL_H

/* For the calling thread alone. Needs no privilege; what the kernel refuses or does not know stays as it was. */
void punctual(void);

#endif
