"""What measuring costs the program that is measured: arms, blocks of calls, and the instrumentation by itself."""
