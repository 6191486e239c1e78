// Loaded before the rest, so that the page does not flash in the other colours.
import { followTheme } from "./theme";

followTheme();
