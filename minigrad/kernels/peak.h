/* The most that one core can multiply and add: independent chains in registers, as many as keep its adders busy.
 * Include after vec.h. */
enum { MG_NAME(MG_CHAINS) = 12 };

static double MG_NAME(mg_fma_chains)(ptrdiff_t rounds, double factor, double term, double *flops)
{
    const V x = K((T)factor), y = K((T)term);
    V acc[MG_NAME(MG_CHAINS)], total = K(0);
    MG_UNROLL
    for (int i = 0; i < MG_NAME(MG_CHAINS); i++)
        acc[i] = K((T)i);
    for (ptrdiff_t p = 0; p < rounds; p++) {
        MG_UNROLL
        for (int i = 0; i < MG_NAME(MG_CHAINS); i++)
            acc[i] = v_fma(acc[i], x, y);
    }
    MG_UNROLL
    for (int i = 0; i < MG_NAME(MG_CHAINS); i++)
        total += acc[i];
    *flops = 2.0 * W * MG_NAME(MG_CHAINS) * (double)rounds;
    return v_hsum(total);
}
