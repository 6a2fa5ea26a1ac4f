"""Handwritten modules in the syntax of the TPU compiler."""

import pytest

from paca_jax.planning.collectives import collectives
from paca_jax.planning.hlo import parse, shapes


def cycles(number):
    return f'backend_config={{"window_config":{{"estimated_cycles":"{number}"}}}}'


NOTE = 'metadata={op_name="jit(step)/while"}'
LOOP = f"""HloModule jit_step, is_scheduled=true

%fused.1 (param_0: bf16[8,128]) -> bf16[8,128] {{
  %param_0 = bf16[8,128]{{1,0:T(8,128)(2,1)}} parameter(0)
  ROOT %negate.1 = bf16[8,128]{{1,0:T(8,128)(2,1)}} negate(%param_0)
}}

%body (carry: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {{
  %carry = (s32[]{{:T(128)}}, /*index=1*/bf16[8,128]{{1,0:T(8,128)(2,1)}}) parameter(0)
  %one = s32[]{{:T(128)}} constant(1)
  %i = s32[]{{:T(128)}} get-tuple-element(%carry), index=0
  %x = bf16[8,128]{{1,0:T(8,128)(2,1)}} get-tuple-element(%carry), index=1
  %next = s32[]{{:T(128)S(6)}} add(%i, %one)
  %fusion.2 = bf16[8,128]{{1,0:T(8,128)(2,1)}} fusion(%x), kind=kLoop, calls=%fused.1, {cycles(100)}
  ROOT %tuple.1 = (s32[]{{:T(128)S(6)}}, bf16[8,128]{{1,0:T(8,128)(2,1)}}) tuple(%next, %fusion.2)
}}

%condition (carry: (s32[], bf16[8,128])) -> pred[] {{
  %bound = s32[]{{:T(128)}} constant(5)
  %carry.1 = (s32[]{{:T(128)}}, bf16[8,128]{{1,0:T(8,128)(2,1)}}) parameter(0)
  %i.1 = s32[]{{:T(128)}} get-tuple-element(%carry.1), index=0
  ROOT %lt = pred[]{{:T(512)}} compare(%i.1, %bound), direction=LT
}}

ENTRY %main (x.1: bf16[8,128]) -> bf16[8,128] {{
  %x.1 = bf16[8,128]{{1,0:T(8,128)(2,1)}} parameter(0)
  %zero = s32[]{{:T(128)}} constant(0)
  %copy-start.1 = (bf16[8,128]{{1,0:T(8,128)S(1)}}, bf16[8,128]{{1,0:T(8,128)}}, u32[]{{:S(2)}}) copy-start(%x.1)
  %copy-done.1 = bf16[8,128]{{1,0:T(8,128)S(1)}} copy-done(%copy-start.1)
  %fusion.1 = bf16[8,128]{{1,0:T(8,128)(2,1)S(1)}} fusion(%copy-done.1), kind=kLoop, calls=%fused.1, {cycles(7)}
  %tuple = (s32[]{{:T(128)}}, bf16[8,128]{{1,0:T(8,128)(2,1)}}) tuple(%zero, %fusion.1)
  %while.1 = (s32[]{{:T(128)}}, bf16[8,128]{{1,0:T(8,128)}}) while(%tuple), condition=%condition, body=%body, {NOTE}
  ROOT %out = bf16[8,128]{{1,0:T(8,128)(2,1)}} get-tuple-element(%while.1), index=1
}}
"""


def test_a_loop_counts_its_iterations():
    module = parse(LOOP)
    assert module.cycles == 7 + 5 * 100
    assert module.times["body"] == 5
    assert not module.unknown_loops


def test_memory_traffic_leaves_out_scratch_memory_and_what_stays_inside_a_fusion():
    whole, counter = 8 * 128 * 2, 4
    copied_in = whole  # the other end is scratch memory
    per_iteration = 2 * whole + 2 * counter  # the fusion reads and writes; the counter's sum reads two numbers
    assert parse(LOOP).hbm_bytes == copied_in + 5 * per_iteration


def test_a_slice_of_an_array_is_all_that_is_read():
    module = parse(
        """HloModule sliced

%part (p: f32[100], q: f32[10]) -> f32[10] {
  %p = f32[100]{0} parameter(0)
  %q = f32[10]{0} parameter(1)
  %s = f32[10]{0} slice(%p), slice={[20:30]}
  ROOT %r = f32[10]{0} add(%s, %q)
}

ENTRY %main (a: f32[100]) -> f32[10] {
  %a = f32[100]{0} parameter(0)
  %b = f32[10]{0} slice(%a), slice={[0:10]}
  ROOT %c = f32[10]{0} fusion(%a, %b), kind=kLoop, calls=%part
}
"""
    )
    assert module.hbm_bytes == 4 * (10 + 10) + 4 * (10 + 10 + 10)


def test_kernels_take_their_cost_estimate_at_the_peak():
    cost = 'backend_config={"custom_call_config":{"cost_estimate":{"flops":"300","transcendentals":"9","bytes_accessed":"40"}}}'
    module = parse(LOOP.replace(cycles(100), cost))
    assert module.cycles == 7
    assert module.kernel_seconds(peak_flops=100, bandwidth=1000) == 5 * 3
    assert module.kernel_seconds(peak_flops=100, bandwidth=10) == 5 * 4


def test_a_noted_trip_count_wins():
    noted = LOOP.replace(NOTE, 'backend_config={"known_trip_count":{"n":"9"}}')
    assert parse(noted).cycles == 7 + 9 * 100


@pytest.mark.parametrize(
    "change", [("direction=LT", "direction=NE"), ("s32[]{:T(128)} constant(5)", "s32[]{:T(128)} copy(%carry.1)")]
)
def test_a_loop_of_unknown_length_counts_once_and_is_named(change):
    module = parse(LOOP.replace(*change))
    assert module.unknown_loops == ("jit(step)/while",)
    assert module.cycles == 107


def test_a_text_that_is_not_a_module_is_rejected():
    with pytest.raises(ValueError, match="no entry computation"):
        parse("nothing")


@pytest.mark.parametrize(
    ("text", "bytes_", "in_hbm"),
    [
        ("f32[8,128]{1,0:T(8,128)}", 8 * 128 * 4, True),
        ("bf16[3,5]{1,0:T(8,128)(2,1)S(1)}", 30, False),
        ("pred[7]{0}", 7, True),
        ("s4[10]", 5, True),
        ("f8e4m3fn[6]{0:T(256)}", 6, True),
        ("u32[]{:S(2)}", 4, False),
    ],
)
def test_bytes_of_an_array(text, bytes_, in_hbm):
    (shape,) = shapes(text)
    assert (shape.bytes, shape.in_hbm) == (bytes_, in_hbm)


def with_collective(line):
    parameter, root = "%p = f32[4,8]{1,0} parameter(0)", "ROOT %c = f32[]{:T(128)} constant(0)"
    return parse(f"ENTRY %main (p: f32[4,8]) -> f32[] {{\n  {parameter}\n  {line}\n  {root}\n}}\n")


@pytest.mark.parametrize(
    ("line", "kind", "devices", "bytes_", "sent"),
    [
        (
            "%a = f32[4,8]{1,0} all-reduce(%p), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%sum",
            "all-reduce",
            2,
            128,
            128,
        ),
        ("%a = f32[4,8]{1,0} all-reduce(%p), replica_groups={}, to_apply=%sum", "all-reduce", 8, 128, 224),
        (
            "%a = (f32[4,8]{1,0}, f32[4,8]{1,0}) all-reduce(%p, %p), replica_groups=[2,4]<=[8], to_apply=%sum",
            "all-reduce",
            4,
            256,
            384,
        ),
        ("%a = f32[16,8]{1,0} all-gather(%p), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}", "all-gather", 4, 512, 384),
        (
            "%a = (f32[4,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%p), replica_groups=mesh['x'=2,'y'=4], device_ids=() {'y'}",
            "all-gather",
            4,
            512,
            384,
        ),
        (
            "%a = f32[2,8]{1,0} reduce-scatter(%p), replica_groups=mesh['x'=8] {'x':(1)2}, to_apply=%sum",
            "reduce-scatter",
            2,
            128,
            64,
        ),
        ("%a = f32[4,8]{1,0} all-to-all(%p), replica_groups=mesh['x'=2,'y'=4] {'x','y'}", "all-to-all", 8, 128, 112),
        ("%a = f32[4,8]{1,0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}", "collective-permute", 2, 128, 128),
    ],
)
def test_a_collective_has_a_kind_a_group_and_bytes(line, kind, devices, bytes_, sent):
    (found,) = collectives(with_collective(line), 8)
    assert (found.kind, found.devices, found.count) == (kind, devices, 1)
    assert found.sent_bytes == sent
    assert found.total_bytes == found.largest_bytes == bytes_


CHAIN = """
%begin (p.1: f32[2,8]) -> (f32[2,8], f32[8,8]) {
  %p.1 = f32[2,8]{1,0} parameter(0)
  %g.1 = f32[8,8]{1,0} all-gather(%p.1), replica_groups=[2,4]<=[8], dimensions={0}, frontend_attributes={chain_id="3"}
  ROOT %t.1 = (f32[2,8]{1,0}, f32[8,8]{1,0}) tuple(%p.1, %g.1)
}

%middle (p.2: f32[2,8], x.2: f32[5]) -> (f32[5], f32[8,8]) {
  %p.2 = f32[2,8]{1,0} parameter(0)
  %x.2 = f32[5]{0} parameter(1)
  %g.2 = f32[8,8]{1,0} all-gather(%p.2), replica_groups=[2,4]<=[8], dimensions={0}, frontend_attributes={chain_id="3"}
  ROOT %t.2 = (f32[5]{0}, f32[8,8]{1,0}) tuple(%x.2, %g.2)
}

ENTRY %main (p: f32[2,8], x: f32[5]) -> f32[5] {
  %p = f32[2,8]{1,0} parameter(0)
  %x = f32[5]{0} parameter(1)
  %start = (f32[2,8]{1,0}, f32[8,8]{1,0}) fusion(%p), kind=kCustom, calls=%begin
  %p.3 = f32[2,8]{1,0} get-tuple-element(%start), index=0
  %step = (f32[5]{0}, f32[8,8]{1,0}) fusion(%p.3, %x), kind=kCustom, calls=%middle
  ROOT %out = f32[5]{0} get-tuple-element(%step), index=0
}
"""


def test_a_collective_spread_over_fusions_counts_once_and_passing_it_on_is_not_traffic():
    module = parse(CHAIN)
    (found,) = collectives(module, 8)
    assert (found.kind, found.devices, found.count, found.total_bytes) == ("all-gather", 4, 1, 256)
    assert module.hbm_bytes == 2 * 5 * 4


def test_unknown_replica_groups_are_rejected():
    with pytest.raises(ValueError, match="replica groups"):
        collectives(with_collective("%a = f32[4,8]{1,0} all-reduce(%p), replica_groups=everyone, to_apply=%sum"), 8)


def test_the_end_of_a_collective_does_not_count_again():
    line = "%a = f32[4,8]{1,0} all-reduce-start(%p), replica_groups={}, to_apply=%sum\n  %b = f32[4,8]{1,0} all-reduce-done(%a)"
    (found,) = collectives(with_collective(line), 8)
    assert (found.kind, found.count, found.total_bytes) == ("all-reduce", 1, 128)


def test_an_all_reduce_of_which_each_chip_keeps_a_slice_is_a_reduce_scatter():
    line = (
        "%a = f32[4,8]{1,0} all-reduce(%p), replica_groups=[1,8]<=[8], to_apply=%sum\n"
        "  %s = f32[1,8]{1,0} dynamic-slice(%a, %i, %z), dynamic_slice_sizes={1,8}"
    )
    (found,) = collectives(with_collective(line), 8)
    assert found.kind == "reduce-scatter"


def test_collectives_in_a_loop_count_in_each_iteration():
    inside = LOOP.replace(
        "%fusion.2 = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%x), kind=kLoop, calls=%fused.1",
        "%fusion.2 = bf16[8,128]{1,0:T(8,128)(2,1)} all-reduce(%x), replica_groups={}, to_apply=%sum",
    )
    (found,) = collectives(parse(inside), 4)
    assert (found.count, found.total_bytes, found.largest_bytes) == (5, 5 * 2048, 2048)


ON_ANOTHER_CORE = """HloModule jit_f, is_scheduled=true

%called (param_0: f32[1000]) -> f32[1000] {
  %param_0 = f32[1000]{0:T(1024)} parameter(0)
  ROOT %all-reduce.2 = f32[1000]{0:T(1024)} all-reduce(%param_0), replica_groups={}, to_apply=%add, "estimated_cycles":"99"
}, execution_thread="sparsecore"

ENTRY %main (x: f32[1000]) -> f32[1000] {
  %x = f32[1000]{0:T(1024)} parameter(0)
  %start = ((f32[1000]{0:T(1024)}), f32[1000]{0:T(1024)}) call-start(%x), async_execution_thread="sparsecore", to_apply=%called
  ROOT %done = f32[1000]{0:T(1024)} call-done(%start)
}
"""


def test_a_collective_that_another_core_runs_counts_once():
    module = parse(ON_ANOTHER_CORE)
    (found,) = collectives(module, 8)
    assert (found.kind, found.devices, found.count, found.total_bytes) == ("all-reduce", 8, 1, 4000)
    assert module.hbm_bytes == 2 * 4000
    assert module.cycles == 0, "which count for the matrix units' core alone"
