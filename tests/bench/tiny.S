/*
 * The smallest kernel: its first instructions send a newline through COM1, then it ends by the debug exit register,
 * or waits for ever when built with -DWAIT=1, or looks at the serial port for ever with -DWAIT=2. Loaded as an ELF file.
 */
    .globl _start
_start:
    mov $0x3f8, %edx
    mov $'\n', %al
    out %al, %dx
#if WAIT == 2 /* in exits all the time */
    mov $0x3fd, %edx
1:  in %dx, %al
    jmp 1b
#elif WAIT
1:  hlt
    jmp 1b
#else
    xor %eax, %eax
    out %eax, $0xf4
1:  hlt
    jmp 1b
#endif
