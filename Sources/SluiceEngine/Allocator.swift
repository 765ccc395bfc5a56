#if canImport(Glibc)
    internal import CAllocator
#endif

/// Has memory that is freed go back to the system, so that the process takes what its limits say.
///
/// Only glibc has to be told; elsewhere this does nothing.
package enum Allocator {
    /// Arrays from this size on are mapped each on its own, in bytes.
    private static let mappedMin: Int32 = 128 << 10
    /// What stays free at the heap's end, in bytes.
    private static let keptMax: Int32 = 1 << 20

    /// To be called once, before much is allocated.
    ///
    /// By itself glibc maps ever fewer arrays as larger ones are freed, up to 32 MB, and what lies
    /// between others in the heap does not go back (measured: 994 MB resident with 512 MB allowed, and
    /// 646 MB with this).
    package static func configure() {
        #if canImport(Glibc)
            _ = mallopt(M_MMAP_THRESHOLD, mappedMin)
            _ = mallopt(M_TRIM_THRESHOLD, keptMax)
        #endif
    }
}
