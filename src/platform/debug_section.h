// The section of the module's file in which tools from outside find the tables for them.
#pragma once

// A macro, because an attribute takes nothing but a literal.
#if defined(__APPLE__)
#define GREENLET_DEBUG_SECTION "__DATA,greenlet_debug"
#else
#define GREENLET_DEBUG_SECTION ".greenlet_debug"
#endif
