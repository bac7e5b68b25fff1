// Read: starts the screen.

import { appearAsBefore } from '../appearance.js';

appearAsBefore();
