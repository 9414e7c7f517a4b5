#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Everything of KVM that is used and that a KVM could lack. */
static const struct {
    int capability;
    int at_least;
    const char *name;
    const char *since; /* the first Linux release that has it */
} needed[] = {
    {KVM_CAP_USER_MEMORY, 1, "KVM_CAP_USER_MEMORY", "2.6.25"},
    {KVM_CAP_NR_MEMSLOTS, GUEST_MEM_REGIONS_MAX, "KVM_CAP_NR_MEMSLOTS", "2.6.25"},
    {KVM_CAP_SET_TSS_ADDR, 1, "KVM_CAP_SET_TSS_ADDR", "2.6.25"},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, 1, "KVM_CAP_SET_IDENTITY_MAP_ADDR", "2.6.31"},
    {KVM_CAP_EXT_CPUID, 1, "KVM_CAP_EXT_CPUID", "2.6.26"},
    {KVM_CAP_SPLIT_IRQCHIP, 1, "KVM_CAP_SPLIT_IRQCHIP", "4.4"},
    {KVM_CAP_IRQ_ROUTING, LAYOUT_IRQ_LINES, "KVM_CAP_IRQ_ROUTING", "2.6.30"},
    {KVM_CAP_IRQFD, 1, "KVM_CAP_IRQFD", "2.6.32"},
    {KVM_CAP_IOEVENTFD, 1, "KVM_CAP_IOEVENTFD", "2.6.32"},
    {KVM_CAP_IMMEDIATE_EXIT, 1, "KVM_CAP_IMMEDIATE_EXIT", "4.13"},
    {KVM_CAP_GET_TSC_KHZ, 1, "KVM_CAP_GET_TSC_KHZ", "2.6.39"},
};

/* Does a line of /proc/cpuinfo show hardware virtualisation, and do we run in a VM ourselves? */
static void cpu_virtualisation(bool *vmx_or_svm, bool *in_vm)
{
    char text[8192];
    *vmx_or_svm = *in_vm = false;
    int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, sizeof(text) - 1); /* the first processor stands for all */
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    *vmx_or_svm = strstr(text, " vmx") || strstr(text, " svm");
    *in_vm = strstr(text, " hypervisor") != NULL;
}

static int no_node(const char *path, int code, struct minivmm_error *err)
{
    bool vmx_or_svm, in_vm;
    cpu_virtualisation(&vmx_or_svm, &in_vm);
    if (vmx_or_svm)
        return error_set(err, code, "%s: %s; load the module: modprobe kvm_intel or kvm_amd", path,
                         strerror(-code));
    if (in_vm)
        return error_set(err, code,
                         "%s: %s; this machine is itself a VM without nested virtualisation: have "
                         "it switched on where the VM is configured",
                         path, strerror(-code));
    return error_set(err, code,
                     "%s: %s; the processor shows neither vmx nor svm: enable virtualisation in "
                     "the firmware set-up",
                     path, strerror(-code));
}

static int no_permission(const char *path, int code, struct minivmm_error *err)
{
    struct stat st;
    struct group group, *found = NULL;
    char buffer[1024];

    if (stat(path, &st) < 0)
        return error_set(err, code, "%s: %s", path, strerror(-code));
    getgrgid_r(st.st_gid, &group, buffer, sizeof(buffer), &found);
    if (!(st.st_mode & S_IWGRP))
        return error_set(err, code,
                         "%s: %s; only its owner may use it: chmod 660 %s, and join group %s", path,
                         strerror(-code), path, found ? found->gr_name : "of the node");
    if (!found)
        return error_set(err, code, "%s: %s; it belongs to group %u, which you are not in", path,
                         strerror(-code), st.st_gid);
    return error_set(err, code, "%s: %s; join its group: usermod -aG %s USER, then log in again",
                     path, strerror(-code), found->gr_name);
}

static int check_api(struct kvm *kvm, const char *path, struct minivmm_error *err)
{
    int version = ioctl(kvm->fd, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return error_set(err, -errno, "%s: not a KVM device: %s", path, strerror(errno));
    if (version != KVM_API_VERSION)
        return error_set(err, -ENOTSUP, "%s: API version %d, minivmm needs %d", path, version,
                         KVM_API_VERSION);
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        if (ioctl(kvm->fd, KVM_CHECK_EXTENSION, needed[i].capability) < needed[i].at_least)
            return error_set(err, -ENOTSUP, "%s: no %s; it needs Linux %s or newer", path,
                             needed[i].name, needed[i].since);
    }
    kvm->tsc_deadline = ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    kvm->run_size = ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (kvm->run_size < (int)sizeof(struct kvm_run))
        return error_set(err, -ENOTSUP, "%s: KVM_GET_VCPU_MMAP_SIZE: too small", path);
    return 0;
}

int kvm_open(struct kvm *kvm, const char *path, struct minivmm_error *err)
{
    *kvm = (struct kvm){.fd = -1, .vm_fd = -1};
    pthread_mutex_init(&kvm->route_lock, NULL);
    kvm->fd = open(path, O_RDWR | O_CLOEXEC);
    if (kvm->fd < 0) {
        int code = -errno;
        if (code == -ENOENT || code == -ENXIO || code == -ENODEV)
            return no_node(path, code, err);
        if (code == -EACCES || code == -EPERM)
            return no_permission(path, code, err);
        return error_set(err, code, "%s: %s", path, strerror(-code));
    }
    int rc = check_api(kvm, path, err);
    if (rc < 0)
        kvm_close(kvm);
    return rc;
}

/* An ioctl on the VM that fails with a text naming it. */
static int vm_ioctl(struct kvm *kvm, unsigned long request, const char *name, const void *argument,
                    struct minivmm_error *err)
{
    int rc = ioctl(kvm->vm_fd, request, argument);
    return rc < 0 ? error_set(err, -errno, "KVM: %s: %s", name, strerror(errno)) : rc;
}

#define VM_IOCTL(kvm, request, argument, err) vm_ioctl(kvm, request, #request, argument, err)

int kvm_create_vm(struct kvm *kvm, const struct guest_mem *mem, struct minivmm_error *err)
{
    do { /* a signal that arrives while the kernel makes room is no failure */
        kvm->vm_fd = ioctl(kvm->fd, KVM_CREATE_VM, 0);
    } while (kvm->vm_fd < 0 && errno == EINTR);
    if (kvm->vm_fd < 0)
        return error_set(err, -errno, "KVM: KVM_CREATE_VM: %s", strerror(errno));

    for (unsigned i = 0; i < mem->count; i++) {
        const struct guest_region *region = &mem->regions[i];
        struct kvm_userspace_memory_region slot = {.slot = i,
                                                   .guest_phys_addr = region->gpa,
                                                   .memory_size = region->size,
                                                   .userspace_addr = (uintptr_t)region->host};
        int rc = VM_IOCTL(kvm, KVM_SET_USER_MEMORY_REGION, &slot, err);
        if (rc < 0)
            return rc;
    }

    /* Both are for Intel processors without unrestricted guest mode, and harmless elsewhere. */
    uint64_t identity = LAYOUT_KVM_IDENTITY;
    int rc = VM_IOCTL(kvm, KVM_SET_IDENTITY_MAP_ADDR, &identity, err);
    if (rc >= 0 && ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, LAYOUT_KVM_TSS) < 0)
        rc = error_set(err, -errno, "KVM: KVM_SET_TSS_ADDR: %s", strerror(errno));
    if (rc < 0)
        return rc;

    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {LAYOUT_IRQ_LINES}};
    rc = VM_IOCTL(kvm, KVM_ENABLE_CAP, &split, err);
    return rc < 0 ? rc : 0;
}

int kvm_create_vcpu(struct kvm *kvm, unsigned index, struct minivmm_error *err)
{
    int fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    if (fd < 0) {
        int code = -errno;
        int max = ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
        if (max > 0 && index >= (unsigned)max)
            return error_set(err, code, "KVM: cannot create vCPU %u: this host takes at most %d",
                             index, max);
        return error_set(err, code, "KVM: cannot create vCPU %u: %s", index, strerror(-code));
    }
    if (index == 0) {
        /* A host whose clock is odd answers -EIO; then the guest calibrates by itself. */
        int khz = ioctl(fd, KVM_GET_TSC_KHZ, 0);
        kvm->tsc_khz = khz > 0 ? (uint32_t)khz : 0;
    }
    return fd;
}

int kvm_add_irqfd(struct kvm *kvm, int fd, unsigned line, struct minivmm_error *err)
{
    struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = line};
    int rc = VM_IOCTL(kvm, KVM_IRQFD, &irqfd, err);
    return rc < 0 ? rc : 0;
}

void kvm_remove_irqfd(struct kvm *kvm, int fd, unsigned line)
{
    struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = line, .flags = KVM_IRQFD_FLAG_DEASSIGN};
    ioctl(kvm->vm_fd, KVM_IRQFD, &irqfd);
}

int kvm_add_doorbell(struct kvm *kvm, int fd, uint64_t gpa, uint32_t value)
{
    struct kvm_ioeventfd doorbell = {.datamatch = value,
                                     .addr = gpa,
                                     .len = sizeof(value),
                                     .fd = fd,
                                     .flags = KVM_IOEVENTFD_FLAG_DATAMATCH};
    return ioctl(kvm->vm_fd, KVM_IOEVENTFD, &doorbell) < 0 ? -errno : 0;
}

int kvm_add_port_doorbell(struct kvm *kvm, int fd, uint16_t port, uint16_t value)
{
    struct kvm_ioeventfd doorbell = {.datamatch = value,
                                     .addr = port,
                                     .len = sizeof(value),
                                     .fd = fd,
                                     .flags =
                                         KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO};
    return ioctl(kvm->vm_fd, KVM_IOEVENTFD, &doorbell) < 0 ? -errno : 0;
}

void kvm_send_msi(struct kvm *kvm, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
    /* It fails when the guest gave an address that is none of a local APIC: its own loss. */
    ioctl(kvm->vm_fd, KVM_SIGNAL_MSI, &msi);
}

/* With route_lock held. */
static int set_routes(struct kvm *kvm)
{
    /* struct kvm_irq_routing ends in a flexible array; this is one with room. */
    union {
        struct kvm_irq_routing header;
        char bytes[sizeof(struct kvm_irq_routing) +
                   LAYOUT_IRQS * sizeof(struct kvm_irq_routing_entry)];
    } table;

    memset(&table.header, 0, sizeof(table.header));
    for (unsigned i = 0; i < LAYOUT_IRQS; i++) {
        const struct kvm_msi_route *from = &kvm->routes[i];
        if (!from->enabled)
            continue;
        struct kvm_irq_routing_entry entry = {.gsi = i, .type = KVM_IRQ_ROUTING_MSI};
        entry.u.msi.address_lo = (uint32_t)from->address;
        entry.u.msi.address_hi = (uint32_t)(from->address >> 32);
        entry.u.msi.data = from->data;
        table.header.entries[table.header.nr++] = entry;
    }
    return ioctl(kvm->vm_fd, KVM_SET_GSI_ROUTING, &table) < 0 ? -errno : 0;
}

static bool is_same(const struct kvm_msi_route *a, const struct kvm_msi_route *b)
{
    return a->enabled == b->enabled && a->address == b->address && a->data == b->data;
}

int kvm_set_route(struct kvm *kvm, unsigned line, const struct kvm_msi_route *route)
{
    int rc = 0;

    pthread_mutex_lock(&kvm->route_lock);
    const struct kvm_msi_route before = kvm->routes[line];
    if (!is_same(&before, route)) {
        kvm->routes[line] = *route;
        rc = set_routes(kvm);
        if (rc < 0) /* KVM takes all or none: it must not spoil the next table too */
            kvm->routes[line] = before;
    }
    pthread_mutex_unlock(&kvm->route_lock);
    return rc;
}

void kvm_close(struct kvm *kvm)
{
    if (kvm->vm_fd >= 0)
        close(kvm->vm_fd);
    if (kvm->fd >= 0)
        close(kvm->fd);
    kvm->fd = kvm->vm_fd = -1;
}
